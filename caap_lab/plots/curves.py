"""Insertion and deletion curves."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import Styles, level_styles

Kind = Literal["insertion", "deletion"]


def plot_curves(
    shares: Float[np.ndarray, " step"],
    curves: Mapping[str, Float[np.ndarray, " step"]],
    ax: Axes | None = None,
    *,
    xlabel: str = "pixels changed, highest score first (%)",
    ylabel: str = "probability",
    title: str = "",
) -> Axes:
    """Scores over the fraction of pixels that are changed.

    Args:
        shares: Fractions of the pixels, from 0 to 1.
        curves: Scores by the curve's name in the legend.
        ax: Axes to draw in; by default those of a new figure.
        xlabel: Label of the x axis.
        ylabel: The quantity of the scores, with its unit.
        title: Title of the axes.
    """
    frame = pd.concat([pd.DataFrame({"curve": n, "share": 100 * shares, "score": c}) for n, c in curves.items()])
    ax = plot_lines(frame, "share", "score", error=None, hue="curve", ax=ax, xlabel=xlabel, ylabel=ylabel, title=title)
    ax.set_xlim(0, 100)
    return ax


def plot_mean_curves(
    means: pd.DataFrame,
    kind: Kind,
    ax: Axes | None = None,
    *,
    methods: Sequence[str] | None = None,
    styles: Styles | None = None,
    ylabel: str = "probability of the class",
    title: str = "",
    legend: bool = False,
) -> Axes:
    """One line per method with a band of one standard error; CAAP's is black and above the others.

    Args:
        means: One row per method and fraction of pixels: method, share (0 to 1), mean, se.
        kind: "insertion" or "deletion".
        ax: Axes to draw in; by default those of a new figure.
        methods: All possible methods, so that each has the same colour in several figures; by default those in `means`.
        styles: Styles of the methods, in the order of the legend; by default those of `level_styles`.
        ylabel: The quantity of the scores, with its unit.
        title: Title of the axes.
        legend: Draw a legend.
    """
    ax = plot_lines(
        means.assign(percent=100 * means["share"].astype(float)),
        "percent",
        hue="method",
        ax=ax,
        styles=level_styles(list(dict.fromkeys(means["method"])) if methods is None else methods)
        if styles is None
        else styles,
        xlabel="pixels inserted (%)" if kind == "insertion" else "pixels deleted (%)",
        ylabel=ylabel,
        title=title,
        legend=legend,
    )
    ax.set_xlim(0, 100)
    return ax
