"""Scores of patches after each layer: small maps of all layers in one image, with one scale."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from caap_lab.plots.style import COLOUR_MAP, LABEL, SIGNED_COLOUR_MAP, TICK, label_bar, new_axes, title_axes

_ACROSS = 6
"""Maximum number of maps in a row."""


def plot_lens_maps(
    maps: Float[np.ndarray, "layer row col"],
    ax: Axes | None = None,
    *,
    names: Sequence[Any],
    label: str,
    signed: bool = False,
    title: str = "",
) -> Axes:
    """One map per layer, the first on the top left, all on the same scale.

    Args:
        maps: Value of each patch.
        ax: Axes to draw in; by default those of a new figure.
        names: Names of the layers: their numbers.
        label: The quantity of the values, for the colour bar.
        signed: Centre the colours on 0.
        title: Title of the axes.
    """
    count, rows, cols = maps.shape
    down = -(-count // _ACROSS)
    across = -(-count // down)
    gap, head = max(1, cols // 8), max(2, rows // 4)  # room above each map for its number
    sheet = np.full((down * (rows + head), across * (cols + gap) - gap), np.nan)
    ax = new_axes(ax, 1.05 * across + 1.0, 1.05 * down * (rows + head) / (cols + gap) + 0.5)
    low, high = float(np.nanmin(maps)), float(np.nanmax(maps))
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    for place, values in enumerate(maps):
        top, left = place // across * (rows + head) + head, place % across * (cols + gap)
        sheet[top : top + rows, left : left + cols] = values
        text = f"layer {names[place]}" if place == 0 else str(names[place])
        ax.text(left + cols / 2 - 0.5, top - 0.7, text, ha="center", va="bottom", fontsize=TICK)
    norm, colours = Normalize(low, high), SIGNED_COLOUR_MAP if signed else COLOUR_MAP
    ax.imshow(sheet, cmap=colours, norm=norm, interpolation="nearest")
    ax.set_axis_off()
    figure = cast(Figure, ax.figure)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=ax, fraction=0.04, pad=0.02)
    label_bar(bar, label, LABEL)
    bar.ax.tick_params(labelsize=TICK)
    title_axes(ax, title)
    return ax
