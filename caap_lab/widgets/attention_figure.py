"""The attention widget's state as a figure."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.plots.head_maps import plot_head_maps
from caap_lab.plots.maps import colour_patches, grey, outline_patches, plot_image, plot_map
from caap_lab.plots.style import new_figure


@dataclass(frozen=True, eq=False)
class AttentionScene:
    """What `attention_figure` draws.

    Attributes:
        title: Name of the model.
        query: What looks, in words.
        cell: Row and column of the patch that looks, or nothing.
        pixels: The photo.
        objects: One colour per patch, clear for background.
        tiles: Place in the colour table of each patch, in all maps.
        names: What the layers are called.
        chosen: Layer and head of the large map.
        place: The same in words.
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
    names: list[str]
    chosen: tuple[int, int]
    place: str
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
    size = (scene.pixels.shape[0], scene.pixels.shape[1])
    plot_image(scene.pixels, axes["photo"], title=f"{scene.title}: {scene.query}")
    colour_patches(axes["photo"], scene.objects, size)
    title = f"where it looks in {scene.place}"
    if scene.map is None:
        plot_image(grey(scene.pixels), axes["map"], title=title)
    else:
        look: dict[str, Any] = {"opacity": scene.opacity, "colour_map": scene.colour_map, "limits": (0, scene.high)}
        plot_map(
            scene.map, scene.pixels, axes["map"], label="share of its attention", bar="bottom", title=title, **look
        )
    if scene.cell:
        for name in ("photo", "map"):
            outline_patches(axes[name], (scene.objects.shape[0], scene.objects.shape[1]), size, scene.cell)
    axes["heads"].set_anchor("N")
    if scene.tiles is None:
        axes["heads"].set_axis_off()
    else:
        shares = scene.tiles.astype(np.float32) / 255
        look = {"colour_map": scene.colour_map, "chosen": scene.chosen}
        plot_head_maps(shares, axes["heads"], names=scene.names, title="all heads", **look)
    if scene.regions is not None:
        scene.regions.plot(axes["regions"], quantity=scene.quantity, heads=scene.heads)
    return figure
