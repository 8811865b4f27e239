"""How maps are drawn over their images: by the same words in figures, in maps' own pictures and in the browser."""

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Literal, NamedTuple, get_args

import numpy as np

from caap_lab.errors import InputError

Bar = Literal["right", "bottom"]
"""Where a colour bar is."""


class Look(NamedTuple):
    """How maps are drawn over their images."""

    opacity: float = 0.8
    """Of the map over its image, 0 to 1; where opacity follows the score, of the highest one."""
    smooth: bool = False
    """Interpolate between patches instead of showing each patch's own score."""
    robust: bool = True
    """The colours end at the 2nd and 98th percentile of the scores, not at the lowest and the highest."""
    fade: bool = True
    """Opacity follows the score: low scores, or those near 0 of signed ones, leave the image clear."""
    colour_map: str | None = None
    """A matplotlib colour map; None for the one that fits the sign of the scores."""

    def checked(self) -> "Look":
        """The same, refused if it cannot be drawn.

        Raises:
            InputError: the opacity does not lie from 0 to 1, a switch is neither True nor False, or there is no such
                colour map.
        """
        if not isinstance(self.opacity, Real) or not 0 <= self.opacity <= 1:
            raise InputError(f"opacity must lie from 0 to 1, not {self.opacity!r}.")
        for name in ("smooth", "robust", "fade"):
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False, not {value!r}.")
        if self.colour_map is not None:
            from matplotlib import colormaps

            if self.colour_map not in colormaps:
                near = get_close_matches(str(self.colour_map), list(colormaps), 3)
                advice = f"nearest: {', '.join(near)}" if near else "list(matplotlib.colormaps) has all"
                raise InputError(f"There is no colour map {self.colour_map!r}; {advice}.")
        return self


def check_frame(bar: Bar, limits: tuple[float, float] | None) -> None:
    """Refuse what cannot be the place of a colour bar, or the ends of its colours.

    Raises:
        InputError: it is neither right nor bottom; or the ends are not two numbers, the lower one first.
    """
    if bar not in get_args(Bar):
        raise InputError(f"bar={bar!r} is not known; use 'right' or 'bottom'.")
    if limits is None:
        return
    pair = isinstance(limits, Sequence) and len(limits) == 2 and all(isinstance(end, Real) for end in limits)
    if not pair or not (np.isfinite(limits).all() and limits[0] <= limits[1]):
        raise InputError(f"limits={limits!r} are not the scores at the two ends of the colours, the lower one first.")


LOOK = Look()
"""The defaults, chosen by looking at ten photos under nineteen methods, see docs/overlays.md."""
