"""Small maps of all heads of a model in one image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes

from caap_lab.plots.maps import outline_patches
from caap_lab.plots.style import COLOUR_MAP, new_axes, title_axes


def plot_head_maps(
    shares: Float[np.ndarray, "layer head row col"],
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    colour_map: str = COLOUR_MAP,
    chosen: tuple[int, int] | None = None,
    title: str = "",
) -> Axes:
    """One map per head, one row of them per layer, the first layer on top.

    Args:
        shares: Value of each patch as a fraction of the colour range, from 0 to 1; NaN is transparent.
        ax: Axes to draw in; by default those of a new figure.
        names: Names of the layers; by default their numbers.
        columns: Names of the heads; by default their numbers.
        colour_map: A matplotlib colour map.
        chosen: Layer and head of a map that is framed.
        title: Title of the axes.
    """
    layers, heads, rows, cols = shares.shape
    gap = max(1, cols // 8)
    height, width = rows + gap, cols + gap
    ax = new_axes(ax, 0.25 * heads + 0.7, 0.25 * layers * rows / cols + 0.7)
    # One image of all maps: one axes per head would take seconds.
    sheet = np.zeros((layers, height, heads, width, 4), dtype=np.uint8)  # transparent between the maps
    sheet[:, :rows, :, :cols] = colormaps[colour_map](shares, bytes=True).transpose(0, 2, 1, 3, 4)
    ax.imshow(sheet.reshape(layers * height, heads * width, 4), interpolation="nearest")
    ax.set_xticks(
        np.arange(heads) * width + cols / 2 - 0.5, columns or [str(head) for head in range(heads)], fontsize=7
    )
    ax.set_yticks(
        np.arange(layers) * height + rows / 2 - 0.5, names or [str(layer) for layer in range(layers)], fontsize=7
    )
    ax.set_xlabel("head", fontsize=8)
    ax.set_ylabel("layer (block)", fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if chosen is not None:
        top, left = chosen[0] * height, chosen[1] * width
        pixels = (layers * height, heads * width)
        outline_patches(ax, pixels, pixels, (top, left, top + rows - 1, left + cols - 1))
    title_axes(ax, title)
    return ax
