"""Two values of the same cells plotted against each other, with the line on which they are equal."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from caap_lab.escaping import for_plot
from caap_lab.plots.style import TICK, grey, level_styles, new_axes, style_axes


def plot_agreement(
    cells: pd.DataFrame, ax: Axes | None = None, *, hue: str | None = None, label: str, title: str = ""
) -> Axes:
    """One mark per cell.

    Args:
        cells: One row per cell, with the columns `measured` and `estimated`.
        ax: Axes to draw in; by default those of a new figure.
        hue: A column whose levels have different colours and markers.
        label: The quantity, with its unit.
        title: Title of the axes.
    """
    ax = new_axes(ax, 4.4, 4.0)
    levels = ["cell"] if hue is None else list(dict.fromkeys(cells[hue].astype(str)))
    for level, style in level_styles(levels).items():
        chosen = cells if hue is None else cells[cells[hue].astype(str) == level]
        marks: dict[str, Any] = {"s": 12, "alpha": 0.6, "linewidths": 0, "color": style.ink, "marker": style.marker}
        ax.scatter(chosen["measured"], chosen["estimated"], label=for_plot(level), **marks)
    both = cells[["measured", "estimated"]].to_numpy()
    ends = [float(both.min()), float(both.max())]
    ax.plot(ends, ends, color=grey(0.4), linewidth=0.8, linestyle="--", label="equal")
    style_axes(ax, xlabel=f"measured {label}", ylabel="estimated", title=title)
    ax.legend(fontsize=TICK, frameon=False)
    return ax
