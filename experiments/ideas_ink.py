"""Colours of the pictures of ideas, on white and on dark."""

from typing import NamedTuple

from caap_lab.plots.style import COLOURS


class Ink(NamedTuple):
    """The colours of a picture."""

    paper: str
    text: str
    line: str
    blank: str
    """Cells of the blank's run."""
    source: str
    """Cells that come from the image's run."""
    live: str
    """Cells that are computed in this run."""
    accent: str
    """The cutoff, and arrows."""


LIGHT = Ink("#ffffff", "#1a1a1a", "#ffffff", "#d9dce1", COLOURS[4], COLOURS[2], COLOURS[1])
DARK = Ink("#1e2129", "#e6e8ec", "#1e2129", "#4c525e", COLOURS[4], COLOURS[2], "#ff8a3d")
