"""Signed contributions of parts, as bars from 0, and of source tokens through every head, as small maps."""

from typing import cast

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from caap_lab.escaping import for_plot
from caap_lab.plots.head_maps import plot_head_maps
from caap_lab.plots.style import COLOURS, LABEL, SIGNED_COLOUR_MAP, TICK, grey, label_bar, new_axes, style_axes


def plot_parts(frame: pd.DataFrame, ax: Axes | None = None, *, label: str, category: str = "", title: str = "") -> Axes:
    """One bar per part, the first on top, with its standard error; values below 0 have another colour.

    Args:
        frame: Columns part, mean and se, one row per part.
        ax: Axes to draw in; by default those of a new figure whose height fits the number of parts.
        label: The quantity of the means, with its unit.
        category: Kind of the parts.
        title: Title of the axes.
    """
    ax = new_axes(ax, 5.4, 0.19 * len(frame) + 1.0)
    places = range(len(frame))
    colours = [COLOURS[1] if mean > 0 else COLOURS[0] for mean in frame["mean"]]
    errors = frame["se"] if (frame["se"] > 0).any() else None
    ax.barh(places, frame["mean"], xerr=errors, color=colours, height=0.7, error_kw={"linewidth": 0.9})
    ax.axvline(0, color=grey(0.3), linewidth=0.8)
    ax.set_yticks(places, [for_plot(str(name)) for name in frame["part"]], fontsize=TICK)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    style_axes(ax, xlabel=label, ylabel=category, title=title)
    ax.tick_params(axis="y", labelsize=7)
    return ax


def plot_head_shares(
    maps: Float[np.ndarray, "layer head row col"], ax: Axes | None = None, *, label: str, title: str = ""
) -> Axes:
    """One signed map per head, one row of them per layer, all on one scale centred on 0.

    Args:
        maps: Contribution of each patch.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity of the contributions, with its unit.
        title: Title of the axes.
    """
    layers, heads, rows, cols = maps.shape
    side = min(0.7, max(0.4, 2.8 / heads))  # side of a map in inches: a few heads have more room
    ax = new_axes(ax, max(4.4, side * heads + 1.6), max(2.6, side * layers * rows / cols + 1.0))
    limit = float(np.abs(maps).max()) or 1.0
    plot_head_maps((maps / limit + 1) / 2, ax, colour_map=SIGNED_COLOUR_MAP, title=title)
    scale = ScalarMappable(Normalize(-limit, limit), SIGNED_COLOUR_MAP)
    bar = cast(Figure, ax.figure).colorbar(scale, ax=ax, fraction=0.05, pad=0.02)
    label_bar(bar, label, LABEL)
    bar.ax.tick_params(labelsize=TICK)
    return ax
