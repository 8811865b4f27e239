"""Attention over the layers of a model."""

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes

from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import COLOURS, MARKERS, TICK, LevelStyle, Styles, new_axes

REGION_STYLES: Styles = {
    "intra-object": LevelStyle(COLOURS[0], "-", MARKERS[0]),
    "inter-object": LevelStyle(COLOURS[4], "--", MARKERS[1]),
    "object-to-background": LevelStyle(COLOURS[2], "-.", MARKERS[2]),
    "background-to-object": LevelStyle(COLOURS[1], ":", MARKERS[3]),
    "background-to-background": LevelStyle(COLOURS[6], (0, (5, 1, 1, 1, 1, 1)), MARKERS[4]),
}
"""The kinds of pairs between patches."""
REGION_LABELS = {
    "weight": "attention weight (mean over pairs)",
    "mass": "attention mass (share of a query's attention)",
}
HEAD_LABELS = {"distance": "attention distance (pixels)", "entropy": "attention entropy (nats)"}
_LAYER = "layer (block)"


def plot_regions(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    styles: Styles = REGION_STYLES,
    ylabel: str = REGION_LABELS["weight"],
    title: str = "",
    legend: bool = True,
) -> Axes:
    """Attention between kinds of patches over layers, with bands of one standard error.

    Args:
        frame: One row per kind and layer: kind, layer, mean, se. Kinds without a style, and those whose mean is NaN
            because no image has such pairs, are not drawn.
        ax: Axes to draw in; by default those of a new figure.
        styles: Style of each kind.
        ylabel: The quantity, with its unit.
        title: Title of the axes.
        legend: Draw a legend below the axes, because five lines leave no room between them.
    """
    ax = new_axes(ax, height=3.8)
    plot_lines(
        frame,
        "layer",
        hue="kind",
        ax=ax,
        styles=styles,
        whole_numbers=True,
        xlabel=_LAYER,
        ylabel=ylabel,
        title=title,
        legend=False,
    )
    ax.set_ylim(bottom=0, auto=True)  # the top still follows other panels that share the axis
    ax.set_xlim(-0.3, frame["layer"].max() + 0.3)
    if legend:
        ax.legend(
            fontsize=TICK, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16), handlelength=3.5
        )
    return ax


def plot_heads(
    heads: Float[np.ndarray, "layer head"],
    mean: Float[np.ndarray, " layer"],
    error: Float[np.ndarray, " layer"],
    ax: Axes | None = None,
    *,
    ylabel: str,
    title: str = "",
) -> Axes:
    """One dot per head over layers, and a line with a band of one standard error for their mean.

    Args:
        heads: The value of each head.
        mean: Their mean.
        error: Its standard error.
        ax: Axes to draw in; by default those of a new figure.
        ylabel: The quantity, with its unit.
        title: Title of the axes.
    """
    ax = new_axes(ax)
    layers = np.repeat(np.arange(len(heads)), heads.shape[1])
    dots = {"color": "0.6", "s": 14, "linewidth": 0, "label": "each head", "legend": False}
    sns.scatterplot(x=layers, y=heads.reshape(-1), ax=ax, **dots)
    frame = pd.DataFrame({"layer": np.arange(len(mean)), "mean": mean, "se": error, "line": "mean over heads"})
    plot_lines(frame, "layer", hue="line", ax=ax, whole_numbers=True, xlabel=_LAYER, ylabel=ylabel, title=title)
    ax.set_xlim(-0.3, len(heads) - 0.7)
    return ax
