"""Attention between regions over the layers."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from caap_lab.checks import check_choice
from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, new_axes, quiet_grid

if TYPE_CHECKING:
    from caap_lab.diagnostics.attention_regions import AttentionRegions

STYLES = {
    "intra-object": (COLOURS[0], "-"),
    "inter-object": (COLOURS[4], "--"),
    "object-to-background": (COLOURS[2], "-."),
    "background-to-object": (COLOURS[1], ":"),
    "background-to-background": (COLOURS[6], (0, (5, 1, 1, 1, 1, 1))),
}
"""The kinds of pairs between patches: a colour, and a dash of its own for print in grey."""
REGION_LABELS = {
    "weight": "attention weight, mean of pairs",
    "mass": "attention mass, share of 1 a query",
}
_HEAD_LABELS = {"distance": "attention distance (pixels)", "entropy": "attention entropy (nats)"}


def plot_regions(
    result: "AttentionRegions",
    ax: Axes | None = None,
    *,
    quantity: Literal["weight", "mass"] = "weight",
    heads: Literal["mean"] | int = "mean",
) -> Axes:
    """Weight or mass of the kinds of pairs between patches over layers, with bands of one standard error.

    Args:
        result: What `attention_regions` gives.
        ax: Axes to draw in; by default those of a new figure.
        quantity: "weight" or "mass".
        heads: "mean" over heads, or the number of one.
    """
    check_choice("quantity", quantity, tuple(REGION_LABELS))
    ax = _axes(ax, result, height=3.8)
    means, errors = (read(quantity, heads=heads) for read in (result.mean, result.standard_error))
    for kind, (colour, dash) in STYLES.items():
        mean, error = (values[result.kinds.index(kind)] for values in (means, errors))
        if np.isfinite(mean).all():  # else no image has such pairs
            _line(ax, mean, error, colour, dash, kind)
    ax.set_ylabel(REGION_LABELS[quantity])
    ax.set_ylim(bottom=0)
    which = "mean over heads" if heads == "mean" else f"head {heads}"
    ax.set_title(for_plot(f"{result.model_name}, {_images(result)}, {which}"), fontsize=9)
    # Below the axes: five lines leave no room between them.
    ax.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16), handlelength=3.5)
    return ax


def plot_heads(result: "AttentionRegions", quantity: Literal["distance", "entropy"], ax: Axes | None = None) -> Axes:
    """Distance or entropy over layers: a dot a head, and a line with a band of one standard error for their mean."""
    ax = _axes(ax, result)
    each = result.mean(quantity)
    layers = np.broadcast_to(np.arange(len(each))[:, None], each.shape)
    ax.plot(layers.reshape(-1), each.reshape(-1), "o", color="0.6", markersize=3, label="each head")
    mean, error = (read(quantity, heads="mean") for read in (result.mean, result.standard_error))
    _line(ax, mean, error, COLOURS[0], "-", "mean over heads")
    ax.set_ylabel(_HEAD_LABELS[quantity])
    ax.set_title(for_plot(f"{result.model_name}, {_images(result)}"), fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    return ax


def _axes(ax: Axes | None, result: "AttentionRegions", height: float = 3.2) -> Axes:
    ax = new_axes(ax, height=height)
    ax.set_xlabel("layer (block)")
    ax.set_xlim(-0.3, result.distance.shape[1] - 0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet_grid(ax)
    return ax


def _line(ax: Axes, mean: np.ndarray, error: np.ndarray, colour: str, dash: object, label: str) -> None:
    layers = np.arange(len(mean))
    ax.plot(layers, mean, linestyle=dash, color=colour, label=label)
    ax.fill_between(layers, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)


def _images(result: "AttentionRegions") -> str:
    count = len(result.images)
    return f"{count} image{'s' * (count != 1)}"
