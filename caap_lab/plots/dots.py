"""One metric of all methods on several models, as dots with their standard errors."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from caap_lab.escaping import for_plot
from caap_lab.plots.style import method_styles, new_axes, quiet_grid

if TYPE_CHECKING:
    import pandas as pd


def plot_dots(frame: "pd.DataFrame", label: str, ax: Axes | None = None) -> Axes:
    """A row a model, a mark a method.

    Args:
        frame: Columns model, method, mean and se, one line each.
        label: What the numbers are, with their unit.
        ax: Axes to draw in; by default those of a new figure.
    """
    ax = new_axes(ax)
    models, methods = (list(dict.fromkeys(frame[name])) for name in ("model", "method"))
    places = np.arange(len(models))
    step = min(0.07, 0.8 / max(1, len(methods)))
    for index, (method, style) in enumerate(method_styles(methods).items()):
        part = frame[frame["method"] == method].set_index("model").reindex(models)
        ax.errorbar(
            part["mean"],
            places + (index - (len(methods) - 1) / 2) * step,
            xerr=part["se"],
            fmt=style.marker,
            color=style.colour,
            markersize=5 if style.ours else 4,
            linewidth=0.7,
            label=for_plot(method),
        )
    ax.set_yticks(places, [for_plot(model) for model in models], fontsize=8)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel(for_plot(f"{label}, mean ± standard error"))
    quiet_grid(ax)
    return ax
