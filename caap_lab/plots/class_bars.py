"""Probabilities of classes in several runs, as bars."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, TICK, new_axes, style_axes

WIDTH = 0.8
"""Height of all bars of a class together."""


def plot_class_bars(shares: pd.DataFrame, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Horizontal bars, one group per class and one bar per run.

    Args:
        shares: Probabilities from 0 to 1; one row per class from top to bottom, one column per run.
        ax: Axes to draw in; by default those of a new figure.
        title: Title of the axes.
    """
    ax = new_axes(ax, 5.0, 0.9 + 0.45 * len(shares))
    height = WIDTH / shares.shape[1]
    for number, (run, values) in enumerate(shares.items()):
        places = np.arange(len(shares)) + height * (number - (shares.shape[1] - 1) / 2)
        ax.barh(places, values, height=height, color=COLOURS[(7, 1, 0)[number % 3]], label=for_plot(str(run)))
    ax.set_yticks(range(len(shares)), [for_plot(str(name)) for name in shares.index])
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.legend(fontsize=TICK, loc="lower right", framealpha=0.9)
    return style_axes(ax, xlabel="probability", ylabel="", title=title)
