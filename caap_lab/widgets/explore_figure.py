"""The explorer's state as a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from caap_lab.plots.maps import outline_patches, plot_image
from caap_lab.plots.style import ACCENT, COLOURS, new_figure

BOX_COLOUR = COLOURS[4]
"""As in the browser; the chosen patch has the accent."""


def map_title(name: str, m: AttributionMap) -> str:
    """The method, and the target unless the method's maps are the same for all."""
    return f"{name} for {m.caption}" if METHODS[name].class_specific else f"{name}, the same for every class"


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
    photo, *panels = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    plot_image(pixels, photo, title=title)
    for ax, (name, m) in zip(panels, maps.items(), strict=True):
        m.overlay(ax, opacity=opacity, colour_map=colour_map, label=m.score, title=map_title(name, m))
    for ax in (photo, *panels):
        for corners, colour in ((chosen, ACCENT), (box, BOX_COLOUR)):
            if corners:
                outline_patches(ax, grid, (height, width), corners, colour)
    return figure
