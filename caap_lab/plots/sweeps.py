"""Metrics over the settings of a sweep."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from caap_lab.bench.result import LOWER_IS_BETTER, statistics
from caap_lab.escaping import for_plot
from caap_lab.plots.maps import COLOUR_MAP
from caap_lab.plots.style import COLOURS, new_axes, quiet_grid

if TYPE_CHECKING:
    from caap_lab.sweeps.result import CaapSweep

BLUE, VERMILION = COLOURS[:2]
"""Marks differ in form as well."""
NAMES = {
    "deletion": "deletion area",
    "insertion": "insertion area",
    "insdel": "insertion - deletion",
    "aupr1": "AUPR of the object",
    "aupr0": "AUPR of the rest",
    "pooled_ap": "mAP of object and rest",
    "pointing": "pointing game hits",
    "pointing_expected": "pointing game hits, ties shared",
    "mass_inside": "map inside the object",
}
_AXES = {"cutoff": "cutoff (number of blocks patched from the first on)", "start": "start (first patched block)"}


def plot_sweep(sweep: "CaapSweep", ax: Axes | None = None, metric: str = "insdel") -> Axes:
    """Means over images: a line with its standard error over cutoffs, points over names, a heat map over ranges.

    Args:
        sweep: The sweep.
        ax: Where to draw; by default a figure of its own.
        metric: One of `sweep.metric_names`.

    Raises:
        InputError: the sweep does not have this metric.
    """
    found = [statistics(column) for column in sweep.values(metric).T]
    mean, error = (np.array([one[key] for one in found]) for key in ("mean", "se"))
    ax = new_axes(ax, height=3.4)
    label = f"{NAMES[metric]} (%)"
    if len(sweep.axes) == 2:
        _triangle(ax, sweep, mean, label)
    else:
        (_line if sweep.axes == ("cutoff",) else _points)(ax, sweep, mean, error)
        ax.set_ylabel(label)
        quiet_grid(ax)
    if ax.get_legend_handles_labels()[0]:  # a triangle without the default has none
        ax.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
    count = f"{len(sweep.images)} image{'s' if len(sweep.images) > 1 else ''}"
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    ax.set_title(for_plot(f"{sweep.model.model_name}, {count}, {better} is better"), fontsize=9, pad=20)
    return ax


def _line(ax: Axes, sweep: "CaapSweep", mean: np.ndarray, error: np.ndarray) -> None:
    order = np.argsort(sweep.labels)
    cutoffs, mean, error = np.array(sweep.labels)[order], mean[order], error[order]
    ax.fill_between(cutoffs, mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0, label="± standard error")
    ax.plot(cutoffs, mean, "o-", color=BLUE, markersize=4, label="mean")
    if sweep.default is not None:
        ax.axvline(sweep.default, color=VERMILION, linestyle="--", linewidth=1, label="default")  # type: ignore[arg-type]
    ax.set_xlabel(_AXES["cutoff"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _points(ax: Axes, sweep: "CaapSweep", mean: np.ndarray, error: np.ndarray) -> None:
    places = np.arange(len(sweep.labels))
    default = np.array([label == sweep.default for label in sweep.labels])
    for chosen, colour, mark, name in ((~default, BLUE, "o", "mean"), (default, VERMILION, "s", "default")):
        if chosen.any():
            ax.errorbar(
                places[chosen],
                mean[chosen],
                error[chosen],
                fmt=mark,
                color=colour,
                capsize=3,
                label=f"{name} ± standard error",
            )
    ax.set_xticks(
        places, [for_plot(str(label)) for label in sweep.labels], rotation=30, ha="right", rotation_mode="anchor"
    )
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_xlabel(for_plot(sweep.axes[0]))


def _triangle(ax: Axes, sweep: "CaapSweep", mean: np.ndarray, label: str) -> None:
    pairs = np.array(sweep.labels)
    (top, left), (bottom, right) = pairs.min(axis=0), pairs.max(axis=0)
    cells = np.full((bottom - top + 1, right - left + 1), np.nan)
    cells[pairs[:, 0] - top, pairs[:, 1] - left] = mean
    shown = ax.imshow(cells, cmap=COLOUR_MAP, extent=(left - 0.5, right + 0.5, bottom + 0.5, top - 0.5), aspect="auto")
    if isinstance(sweep.default, tuple):
        start, cutoff = sweep.default
        place = (cutoff - 0.5, start - 0.5)
        ax.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=VERMILION, linewidth=2, label="default"))
    ax.set_xlabel("cutoff (block after the last patched one)")
    ax.set_ylabel(_AXES["start"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.colorbar(shown, ax=ax).set_label(label)
