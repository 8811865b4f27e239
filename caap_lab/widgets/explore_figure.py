"""The explorer's state as a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from caap_lab.attribution.map import AttributionMap
from caap_lab.escaping import for_plot
from caap_lab.plots.style import new_figure

CHOSEN_COLOUR, BOX_COLOUR = "#d55e00", "#e69f00"


def explore_figure(
    title: str,
    pixels: UInt8[np.ndarray, "height width 3"],
    maps: Mapping[str, AttributionMap],
    grid: tuple[int, int],
    chosen: Sequence[int],
    box: Sequence[int],
    opacity: float,
    colour_map: str | None,
) -> Figure:
    """The photo, and maps with their scales; outlined are the chosen patch and the box.

    Args:
        title: Of the photo.
        pixels: The photo.
        maps: By the names of their methods.
        grid: Rows and columns of patches.
        chosen: Row and column of a patch, or nothing.
        box: First row and column and last row and column, or nothing.
        opacity: Of the maps over the photo.
        colour_map: A matplotlib colour map; None for the one that fits the map's signs.
    """
    height, width = pixels.shape[:2]
    figure = new_figure(0.4 + 3.0 * (1 + len(maps)), 3.0 * height / width + 0.4)
    panels = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    panels[0].imshow(pixels, interpolation="nearest")
    panels[0].set_title(for_plot(title), fontsize=9)
    panels[0].set_axis_off()
    for ax, (name, m) in zip(panels[1:], maps.items(), strict=True):
        title = f"{name} for '{m.target_name}'"
        m.overlay(ax, opacity=opacity, colour_map=colour_map, label=m.score, title=title)
    for cells, colour in (((*chosen, *chosen), CHOSEN_COLOUR), (box, BOX_COLOUR)):
        if cells:
            top, left, bottom, right = cells
            row, col = height / grid[0], width / grid[1]  # a patch's size in pixels
            for ax in panels:
                corner, size = (left * col - 0.5, top * row - 0.5), ((right - left + 1) * col, (bottom - top + 1) * row)
                ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=2))
    return figure
