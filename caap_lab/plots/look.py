"""How maps are drawn over their images: by the same words in figures, in maps' own pictures and in the browser."""

from difflib import get_close_matches
from typing import Literal, NamedTuple

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
            InputError: the opacity does not lie from 0 to 1, or there is no such colour map.
        """
        if not 0 <= self.opacity <= 1:
            raise InputError(f"opacity must lie from 0 to 1, not {self.opacity}.")
        if self.colour_map is not None:
            from matplotlib import colormaps

            if self.colour_map not in colormaps:
                near = get_close_matches(str(self.colour_map), list(colormaps), 3)
                advice = f"nearest: {', '.join(near)}" if near else "list(matplotlib.colormaps) has all"
                raise InputError(f"There is no colour map {self.colour_map!r}; {advice}.")
        return self


LOOK = Look()
"""The defaults, chosen by looking at ten photos under nineteen methods, see docs/overlays.md."""
