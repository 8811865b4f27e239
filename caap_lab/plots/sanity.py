"""Similarity of maps to the original ones while a model's weights are shuffled, group by group."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.spans import CORRELATION
from caap_lab.plots.style import TICK, grey, level_styles, new_axes

MOST_LINES = 9
"""Maximum number of methods drawn as lines; more are rows of a heat map."""
TRAINED = "none"
"""The step before the first one, with nothing shuffled."""


def plot_shuffled(
    frame: pd.DataFrame, steps: Sequence[str], ax: Axes | None = None, *, label: str, xlabel: str, title: str = ""
) -> Axes:
    """One line per method over the steps; for many methods, a heat map with one row per method.

    Args:
        frame: One row per method and step, with the columns method, step, mean and se.
        steps: Names of the steps, in order.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity of the means.
        xlabel: Label of the steps.
        title: Title of the axes.
    """
    methods = list(dict.fromkeys(frame["method"]))
    if len(methods) > MOST_LINES:
        cells = frame.pivot(index="method", columns="step", values="mean").reindex(index=methods, columns=list(steps))
        ax = new_axes(ax, max(4.8, 0.42 * len(steps) + 2.8), max(3.2, 0.2 * len(methods) + 1.4))
        ax = plot_heat(cells, ax, label=label, signed=True, limits=CORRELATION, xlabel=xlabel, ylabel="", title=title)
        ax.tick_params(axis="x", labelrotation=90)
        return ax
    places = {step: place for place, step in enumerate(steps, start=1)}
    ranked = frame.dropna(subset=["mean"])["method"].unique()  # constant maps have no ranks, not even with themselves
    first = pd.DataFrame({"method": ranked, "place": 0, "mean": 1.0, "se": 0.0})
    rows = pd.concat([first, frame.assign(place=frame["step"].map(places))], ignore_index=True)
    ax = plot_lines(
        rows,
        "place",
        hue="method",
        ax=new_axes(ax, max(4.8, 0.36 * len(steps) + 2.4), 3.6),
        styles=level_styles(methods),
        markers=True,
        natural=CORRELATION,
        xlabel=xlabel,
        ylabel=label,
        title=title,
        legend=False,
    )
    ax.axhline(0, color=grey(0.4), linewidth=0.8, zorder=1)
    ax.set_xticks(range(len(steps) + 1), [TRAINED, *steps], rotation=60, ha="right", rotation_mode="anchor")
    ax.tick_params(labelsize=TICK)
    if len(ranked):
        ax.legend(fontsize=TICK, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
