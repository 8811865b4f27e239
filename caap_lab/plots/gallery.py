"""Many maps in one grid: one row per image, one column per method."""

from collections.abc import Sequence
from textwrap import shorten
from typing import NamedTuple

from matplotlib.figure import Figure

from caap_lab.errors import InputError
from caap_lab.escaping import for_plot
from caap_lab.plots.maps import Pixels, Scores, plot_image, plot_map
from caap_lab.plots.style import new_figure

PANEL, TITLE, GAP = 1.25, 0.3, 0.1
"""Inches: a panel with the gap beside it, a title of two lines, and the gap."""
WIDTH = 24
"""Letters of a title that fit over a panel."""


class GalleryRow(NamedTuple):
    """One image and its maps."""

    image: Pixels
    titles: Sequence[str]
    """Above the image, a line each: the model and the target, say."""
    maps: Sequence[Scores]
    signed: Sequence[bool]
    """Of each map, whether its colours are centred on 0."""


def plot_gallery(rows: Sequence[GalleryRow], titles: Sequence[str]) -> Figure:
    """The image, then each map of the row over it; every map has its own range of colours.

    Args:
        rows: Images of one size, with as many maps in every row.
        titles: Of the columns of maps.

    Raises:
        InputError: rows differ in length, or there is none.
    """
    if not all(isinstance(row, GalleryRow) for row in rows):
        raise InputError("plot_gallery draws arrays, as GalleryRow has them; cl.gallery(rows) draws attribution maps.")
    if not rows or not rows[0].maps or len({len(row.maps) for row in rows}) > 1:
        raise InputError("A gallery needs rows of maps, as many in every row.")
    columns = len(rows[0].maps) + 1
    shape = rows[0].image.shape
    width, height = PANEL * columns, (PANEL * shape[0] / shape[1] + TITLE) * len(rows) + TITLE
    # All panels are alike, so their places are known; to work them out takes as long as to draw them all.
    figure = new_figure(width, height, layout=None)
    gaps = {"wspace": GAP / (PANEL - GAP), "hspace": (TITLE + GAP) / (PANEL * shape[0] / shape[1] - GAP)}
    edges = {
        "left": GAP / 2 / width,
        "right": 1 - GAP / 2 / width,
        "bottom": GAP / height,
        "top": 1 - 2 * TITLE / height,
    }
    panels = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=gaps | edges)
    for line, row in zip(panels, rows, strict=True):
        plot_image(row.image, line[0])
        line[0].set_title("\n".join(map(_short, row.titles)), fontsize=7)
        for ax, scores, signed in zip(line[1:], row.maps, row.signed, strict=True):
            plot_map(scores, row.image, ax, signed=signed)
    for ax, title in zip(panels[0][1:], titles, strict=True):
        ax.set_title(_short(title), fontsize=7)
    return figure


def _short(text: str) -> str:
    cut = shorten(text, WIDTH, placeholder="...")
    return for_plot(f"{text[: WIDTH - 3]}..." if cut == "..." else cut)  # one long word would be dots alone
