"""The attention widget's state as a figure."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.plots.head_maps import plot_head_maps
from caap_lab.plots.maps import colour_patches, grey, outline_patches, plot_image
from caap_lab.plots.style import COLOUR_MAP, new_figure
from caap_lab.widgets.attention_tiles import UNIT
from caap_lab.widgets.board import BY_SIGN, Board
from caap_lab.widgets.board_figure import plot_as_shown
from caap_lab.widgets.head_places import Arrangement


@dataclass(frozen=True, eq=False)
class AttentionScene:
    """The content of an attention figure.

    Attributes:
        title: Name of the model.
        query: The query, in words.
        cell: Row and column of the query patch, or empty.
        pixels: The photo.
        objects: One colour per patch, transparent for background.
        board: The board, for its display settings.
        maps: All maps of the grid, in unsorted order; None until they are read.
        highs: Value at the end of the colours, for each map.
        arrangement: The order in which they are shown.
        chosen: Row and column of the large map, in unsorted order.
        place: That place in words.
        regions: Attention between the objects, if there are any.
        quantity: "mass" or "weight" between regions.
        heads: "mean", or the number of a head.
    """

    title: str
    query: str
    cell: list[int]
    pixels: UInt8[np.ndarray, "height width 3"]
    objects: UInt8[np.ndarray, "row col 4"]
    board: Board
    maps: Float[np.ndarray, "layer head row col"] | None
    highs: Float[np.ndarray, "layer head"] | None
    arrangement: Arrangement
    chosen: tuple[int, int]
    place: str
    regions: AttentionRegions | None
    quantity: Literal["mass", "weight"]
    heads: Literal["mean"] | int


def attention_figure(scene: AttentionScene) -> Figure:
    """The photo with the query and the objects, the chosen head's map with its scale, all heads, and region sums."""
    below = ["photo", "map"] if scene.regions is None else ["photo", "map", "regions"]
    height, left = 3.3 * len(below), 3.9
    rows, cols = scene.objects.shape[:2]
    across = scene.arrangement.across
    down = len(scene.arrangement.order) // across
    right = min(max(height * across / down * cols / rows, 1.2), 8.0) + 0.5
    figure = new_figure(left + right, height)
    axes = figure.subplot_mosaic([[name, "heads"] for name in below], width_ratios=[left, right])
    size = (scene.pixels.shape[0], scene.pixels.shape[1])
    plot_image(scene.pixels, axes["photo"], title=f"{scene.title}: {scene.query}")
    colour_patches(axes["photo"], scene.objects, size)
    title = f"where it looks: {scene.place}"
    axes["heads"].set_anchor("N")
    if scene.maps is None or scene.highs is None:
        plot_image(grey(scene.pixels), axes["map"], title=title)
        axes["heads"].set_axis_off()
    else:
        limits = (0.0, float(scene.highs[scene.chosen]) or 1.0)
        plot_as_shown(
            axes["map"], scene.maps[scene.chosen], scene.pixels, scene.board, limits=limits, label=UNIT, title=title
        )
        highs = np.where(scene.highs > 0, scene.highs, 1)[..., None, None]
        shares = (scene.maps / highs).clip(0, 1).reshape(-1, rows, cols)
        places = np.array(scene.arrangement.order)
        arranged = np.where((places >= 0)[:, None, None], shares[places], np.nan).reshape(down, across, rows, cols)
        number = scene.chosen[0] * scene.maps.shape[1] + scene.chosen[1]
        slot = int(np.flatnonzero(places == number)[0]) if number in places else None
        plot_head_maps(
            arranged,
            axes["heads"],
            names=scene.arrangement.names,
            columns=scene.arrangement.columns,
            colour_map=COLOUR_MAP if scene.board.colours == BY_SIGN else scene.board.colours,
            chosen=None if slot is None else divmod(slot, across),
            title="all heads",
        )
    if scene.cell:
        for name in ("photo", "map"):
            outline_patches(axes[name], (rows, cols), size, scene.cell)
    if scene.regions is not None:
        scene.regions.plot(axes["regions"], quantity=scene.quantity, heads=scene.heads)
    return figure
