"""Small maps of the parts of a model, by layer and head or by layer only, with one scale around 0."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from caap_lab.escaping import for_plot
from caap_lab.plots.style import LABEL, SIGNED_COLOUR_MAP, TICK, label_bar, new_axes, title_axes

_ACROSS = 6
"""Number of maps in a row if there are no heads."""


def plot_part_maps(
    maps: Float[np.ndarray, "part head row col"],
    ax: Axes | None = None,
    *,
    rows: Sequence[Any],
    cols: Sequence[Any] | None,
    row_label: str,
    label: str,
    title: str = "",
) -> Axes:
    """One map per part.

    Args:
        maps: Signed numbers; NaN is grey.
        ax: Axes to draw in; by default those of a new figure.
        rows: Names of the parts, such as numbers of layers.
        cols: Numbers of the heads, next to each other; None for parts without heads (one map each), which are drawn in
            rows of six with their names above them.
        row_label: Kind of the parts.
        label: The quantity, with its unit.
        title: Title of the axes.
    """
    limit = float(np.nanmax(np.abs(maps), initial=0)) or 1.0
    colours = colormaps[SIGNED_COLOUR_MAP].with_extremes(bad="0.85")
    norm = Normalize(-limit, limit)
    count, _, height, width = maps.shape
    down, across = (count, len(cols)) if cols is not None else (-(-count // _ACROSS), min(_ACROSS, count))
    gap = max(1, width // 8)
    head = gap if cols is not None else max(2, height // 3)  # room for a name above each map
    size = 0.5 if cols is not None else 0.9
    ax = new_axes(ax, max(3.4, size * across + 1.8), max(2.2, size * down * (height + head) / (width + gap) + 1.0))
    sheet = np.zeros((down * (height + head), across * (width + gap), 4), dtype=np.uint8)
    for place, values in enumerate(maps.reshape(-1, height, width)):
        top, left = place // across * (height + head) + head, place % across * (width + gap)
        sheet[top : top + height, left : left + width] = colours(norm(values), bytes=True)
        if cols is None:
            name = f"{row_label} {rows[place]}" if place == 0 else str(rows[place])
            ax.text(left - 0.5, top - 1, for_plot(name), ha="left", va="bottom", fontsize=7)
    ax.imshow(sheet, interpolation="nearest")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if cols is None:
        ax.set_xticks([])
        ax.set_yticks([])
    else:
        ax.set_xticks(np.arange(across) * (width + gap) + width / 2 - 0.5, [str(name) for name in cols], fontsize=7)
        places = np.arange(down) * (height + head) + head + height / 2 - 0.5
        ax.set_yticks(places, [for_plot(str(name)) for name in rows], fontsize=7)
        ax.set_xlabel("head", fontsize=LABEL)
        ax.set_ylabel(for_plot(row_label), fontsize=LABEL)
    bar = cast(Figure, ax.figure).colorbar(ScalarMappable(norm, colours), ax=ax, fraction=0.05, pad=0.02)
    label_bar(bar, label, LABEL)
    bar.ax.tick_params(labelsize=TICK)
    title_axes(ax, title)
    return ax
