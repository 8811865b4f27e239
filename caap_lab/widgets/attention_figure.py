"""The attention widget's state as a figure."""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from caap_lab.diagnostics.attention_regions import AttentionRegions
from caap_lab.escaping import for_plot
from caap_lab.plots.style import new_figure
from caap_lab.widgets.pixels import colour_table, grey

QUERY_COLOUR = "#d55e00"


@dataclass(frozen=True, eq=False)
class AttentionScene:
    """What `attention_figure` draws.

    Attributes:
        title: Name of the model.
        query: What looks, in words.
        cell: Row and column of the patch that looks, or nothing.
        pixels: The photo.
        objects: A colour a patch, clear for background.
        tiles: Place in the colour table of each patch, in all maps.
        chosen: Layer and head of the large map.
        map: Its values.
        high: Value of the last colour; the first one's is 0.
        colour_map: A matplotlib colour map.
        opacity: Of the large map over the photo.
        regions: Attention between the objects, if there are any.
        quantity: "mass" or "weight" between regions.
        heads: "mean", or the number of the head.
    """

    title: str
    query: str
    cell: list[int]
    pixels: UInt8[np.ndarray, "height width 3"]
    objects: UInt8[np.ndarray, "row col 4"]
    tiles: UInt8[np.ndarray, "layer head row col"] | None
    chosen: tuple[int, int]
    map: Float[np.ndarray, "row col"] | None
    high: float
    colour_map: str
    opacity: float
    regions: AttentionRegions | None
    quantity: Literal["mass", "weight"]
    heads: Literal["mean"] | int


def attention_figure(scene: AttentionScene) -> Figure:
    """The photo with the query and the objects, the chosen head's map with its scale, all heads, and region sums."""
    below = ["photo", "map"] if scene.regions is None else ["photo", "map", "regions"]
    height, left = 3.3 * len(below), 3.9
    layers, heads = (1, 1) if scene.tiles is None else scene.tiles.shape[:2]
    right = min(max(height * heads / layers * scene.objects.shape[1] / scene.objects.shape[0], 1.2), 8.0) + 0.5
    figure = new_figure(left + right, height)
    axes = figure.subplot_mosaic([[name, "heads"] for name in below], width_ratios=[left, right])
    _draw_photo(axes["photo"], scene)
    _draw_map(axes["map"], scene)
    _draw_heads(axes["heads"], scene)
    if scene.regions is not None:
        scene.regions.plot(axes["regions"], quantity=scene.quantity, heads=scene.heads)
    return figure


def _draw_photo(ax: Axes, scene: AttentionScene) -> None:
    ax.imshow(scene.pixels, interpolation="nearest")
    ax.imshow(scene.objects, alpha=0.5 * (scene.objects[..., 3] > 0), interpolation="nearest", extent=_extent(scene))
    ax.set_title(for_plot(f"{scene.title}: {scene.query}"), fontsize=9)
    ax.set_axis_off()
    _outline_query(ax, scene)


def _draw_map(ax: Axes, scene: AttentionScene) -> None:
    layer, head = scene.chosen
    ax.imshow(grey(scene.pixels), interpolation="nearest")
    ax.set_title(f"where it looks in layer {layer}, head {head}", fontsize=9)
    ax.set_axis_off()
    if scene.map is not None:
        colours = ScalarMappable(Normalize(0, scene.high), scene.colour_map)  # without the overlay's opacity
        rgba = colours.to_rgba(scene.map, alpha=scene.opacity)
        ax.imshow(rgba, interpolation="nearest", extent=_extent(scene))
        bar = cast(Figure, ax.figure).colorbar(colours, ax=ax, location="bottom", fraction=0.05, pad=0.02)
        bar.set_label("share of its attention", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    _outline_query(ax, scene)


def _draw_heads(ax: Axes, scene: AttentionScene) -> None:
    ax.set_title("all heads", fontsize=9)
    ax.set_anchor("N")
    if scene.tiles is None:
        ax.set_axis_off()
        return
    # One picture of all maps: an axes a head would take seconds.
    layers, heads, rows, cols = scene.tiles.shape
    gap = max(1, cols // 8)
    sheet = np.zeros((layers, rows + gap, heads, cols + gap, 4), dtype=np.uint8)
    colours = colour_table(scene.colour_map)[scene.tiles]
    sheet[:, :rows, :, :cols, :3] = colours.transpose(0, 2, 1, 3, 4)
    sheet[:, :rows, :, :cols, 3] = 255
    ax.imshow(sheet.reshape(layers * (rows + gap), heads * (cols + gap), 4), interpolation="nearest")
    ax.set_xticks(np.arange(heads) * (cols + gap) + cols / 2 - 0.5, [str(head) for head in range(heads)], fontsize=7)
    ax.set_yticks(
        np.arange(layers) * (rows + gap) + rows / 2 - 0.5, [str(layer) for layer in range(layers)], fontsize=7
    )
    ax.set_xlabel("head", fontsize=8)
    ax.set_ylabel("layer (block)", fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    layer, head = scene.chosen
    corner = (head * (cols + gap) - 0.5, layer * (rows + gap) - 0.5)
    ax.add_patch(Rectangle(corner, cols, rows, fill=False, edgecolor=QUERY_COLOUR, linewidth=2))


def _extent(scene: AttentionScene) -> tuple[float, float, float, float]:
    height, width = scene.pixels.shape[:2]
    return -0.5, width - 0.5, height - 0.5, -0.5


def _outline_query(ax: Axes, scene: AttentionScene) -> None:
    if scene.cell:
        (row, col), (rows, cols) = scene.cell, scene.objects.shape[:2]
        high, wide = scene.pixels.shape[0] / rows, scene.pixels.shape[1] / cols
        corner = (col * wide - 0.5, row * high - 0.5)
        ax.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=QUERY_COLOUR, linewidth=2))
