"""Many maps in one grid: a row an image and model, a column a method."""

from collections.abc import Sequence
from textwrap import shorten

from matplotlib.figure import Figure

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.escaping import for_plot
from caap_lab.plots.maps import draw_overlay
from caap_lab.plots.style import new_figure

PANEL, TITLE, GAP = 1.25, 0.3, 0.1
"""Inches: a panel with the gap beside it, a title of two lines, and the gap."""
WIDTH = 24
"""Letters of a title that fit over a panel."""


def plot_gallery(
    rows: Sequence[Sequence[AttributionMap]], titles: Sequence[str] | None = None, models: Sequence[str] | None = None
) -> Figure:
    """The photo, then each map of the row over it; every map has its own range of colours.

    Args:
        rows: Maps of one image and model each, as many in every row.
        titles: Of the columns; by default the methods.
        models: What each row's model is called; by default the model's own name.

    Raises:
        InputError: rows differ in length, or there is none.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise InputError("A gallery needs rows of maps, as many in every row.")
    titles = [m.method for m in rows[0]] if titles is None else titles
    models = [row[0].model_name for row in rows] if models is None else models
    columns = len(rows[0]) + 1
    shape = rows[0][0].image.shape
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
    for line, row, model in zip(panels, rows, models, strict=True):
        line[0].imshow(row[0].image.numpy(), interpolation="nearest")
        line[0].set_axis_off()
        told = (model, f"'{row[0].target_name}'")
        line[0].set_title("\n".join(map(_short, told)), fontsize=7)
        for ax, m in zip(line[1:], row, strict=True):
            draw_overlay(ax, m)
    for ax, title in zip(panels[0][1:], titles, strict=True):
        ax.set_title(_short(title), fontsize=7)
    return figure


def _short(text: str) -> str:
    cut = shorten(text, WIDTH, placeholder="...")
    return for_plot(f"{text[: WIDTH - 3]}..." if cut == "..." else cut)  # one long word would be dots alone
