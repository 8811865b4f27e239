"""Signed shares of parts, as bars from 0."""

import pandas as pd
from matplotlib.axes import Axes

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, TICK, new_axes, style_axes


def plot_parts(frame: pd.DataFrame, ax: Axes | None = None, *, label: str, category: str = "", title: str = "") -> Axes:
    """One bar per part, the first on top, with its standard error; what is below 0 has another colour.

    Args:
        frame: Columns part, mean and se, one row per part.
        ax: Axes to draw in; by default those of a new figure as high as the parts need.
        label: What the means are, with their unit.
        category: What the parts are.
        title: Above the axes.
    """
    ax = new_axes(ax, 5.4, 0.19 * len(frame) + 1.0)
    places = range(len(frame))
    colours = [COLOURS[1] if mean > 0 else COLOURS[0] for mean in frame["mean"]]
    errors = frame["se"] if (frame["se"] > 0).any() else None
    ax.barh(places, frame["mean"], xerr=errors, color=colours, height=0.7, error_kw={"linewidth": 0.9})
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, [for_plot(str(name)) for name in frame["part"]], fontsize=TICK)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    style_axes(ax, xlabel=label, ylabel=category, title=title)
    ax.tick_params(axis="y", labelsize=7)
    return ax
