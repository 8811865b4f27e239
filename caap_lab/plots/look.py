"""How maps are drawn over images: the same options in figures, in pictures of maps and in the browser."""

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Literal, NamedTuple, get_args

import numpy as np

from caap_lab.errors import InputError

Bar = Literal["right", "bottom"]
"""Position of a colour bar."""


class Look(NamedTuple):
    """How maps are drawn over their images."""

    opacity: float = 0.8
    """Opacity of the map over its image, 0 to 1; if opacity follows the score, that of the highest score."""
    smooth: bool = False
    """Interpolate between patches instead of showing each patch's own score."""
    robust: bool = True
    """The colours end at the 2nd and 98th percentile of the scores, not at the lowest and the highest."""
    fade: bool = True
    """Opacity follows the score: low scores, or signed ones near 0, are transparent."""
    colour_map: str | None = None
    """A matplotlib colour map; None for the default that fits the sign of the scores."""

    def checked(self) -> "Look":
        """The same look, if it is valid.

        Raises:
            InputError: the opacity is not from 0 to 1, a switch is neither True nor False, or there is no such colour
                map.
        """
        if not isinstance(self.opacity, Real) or not 0 <= self.opacity <= 1:
            raise InputError(f"opacity must be from 0 to 1, not {self.opacity!r}.")
        for name in ("smooth", "robust", "fade"):
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False, not {value!r}.")
        if self.colour_map is not None:
            from matplotlib import colormaps

            if self.colour_map not in colormaps:
                near = get_close_matches(str(self.colour_map), list(colormaps), 3)
                advice = f"nearest: {', '.join(near)}" if near else "list(matplotlib.colormaps) lists all"
                raise InputError(f"There is no colour map {self.colour_map!r}; {advice}.")
        return self


def check_frame(bar: Bar, limits: tuple[float, float] | None) -> None:
    """Raise InputError for an invalid position of a colour bar, or invalid ends of its colours.

    Raises:
        InputError: the position is neither right nor bottom, or the ends are not two numbers with the lower one first.
    """
    if bar not in get_args(Bar):
        raise InputError(f"bar={bar!r} is not known; use 'right' or 'bottom'.")
    if limits is None:
        return
    pair = isinstance(limits, Sequence) and len(limits) == 2 and all(isinstance(end, Real) for end in limits)
    if not pair or not (np.isfinite(limits).all() and limits[0] <= limits[1]):
        raise InputError(f"limits={limits!r} must be the scores at the two ends of the colours, the lower one first.")


LOOK = Look()
"""The defaults, chosen by comparing looks on ten photos and nineteen methods, see docs/overlays.md."""
