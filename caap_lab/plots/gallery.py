"""Many maps in one grid: a row an image and model, a column a method."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.plots.maps import draw_overlay
from caap_lab.plots.style import new_figure


def plot_gallery(rows: Sequence[Sequence[AttributionMap]], titles: Sequence[str] | None = None) -> Figure:
    """The photo, then each map of the row over it; every map has its own range of colours.

    Args:
        rows: Maps of one image and model each, as many in every row.
        titles: Of the columns; by default the methods.

    Raises:
        InputError: rows differ in length, or there is none.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise InputError("A gallery needs rows of maps, as many in every row.")
    titles = [m.method for m in rows[0]] if titles is None else titles
    columns = len(rows[0]) + 1
    figure = new_figure(1.25 * columns, 1.45 * len(rows) + 0.3)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(panels, rows, strict=True):
        line[0].imshow(row[0].image.numpy(), interpolation="nearest")
        line[0].set_axis_off()
        line[0].set_title(f"{row[0].model_name}\n{row[0].target_name}", fontsize=7)
        for ax, m in zip(line[1:], row, strict=True):
            draw_overlay(ax, m)
    for ax, title in zip(panels[0][1:], titles, strict=True):
        ax.set_title(title, fontsize=7)
    return figure
