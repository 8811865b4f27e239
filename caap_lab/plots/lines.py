"""Means over a numeric axis, as lines with bands of one standard error."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from caap_lab.escaping import for_plot
from caap_lab.plots.spans import keep_span
from caap_lab.plots.style import (
    ACCENT,
    BAND_OPACITY,
    TICK,
    Styles,
    level_styles,
    new_axes,
    style_axes,
)

_ONE = "mean"
"""The only level if there is no `hue`."""


def plot_lines(
    frame: pd.DataFrame,
    x: str,
    y: str = "mean",
    *,
    error: str | None = "se",
    hue: str | None = None,
    ax: Axes | None = None,
    styles: Styles | None = None,
    markers: bool = False,
    whole_numbers: bool = False,
    natural: tuple[float, float] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    title: str = "",
    legend: bool = True,
) -> Axes:
    """One line per level of `hue`, with a band of one standard error.

    The numbers drawn are those of the frame: no mean and no error is computed here.

    Args:
        frame: One row per point of a line.
        x: Column of the numeric axis.
        y: Column of the means.
        error: Column of their standard errors; None for no band.
        hue: Column whose levels are lines; None for one line.
        ax: Axes to draw in; by default those of a new figure.
        styles: Colour, dash and marker of each level, in the order of the legend; by default those of `level_styles`.
            Levels look the same in several figures if all figures use the same styles.
        markers: Mark the points of a line.
        whole_numbers: Ticks of the x axis at whole numbers only (blocks, layers).
        natural: Possible range of the means, such as `caap_lab.plots.spans.SHARE`; the y axis spans at least a quarter
            of it, see `value_span`.
        xlabel: Label of the x axis, with its unit; by default the column's name.
        ylabel: The same for the y axis.
        title: Title of the axes.
        legend: Draw a legend if there is a `hue`.
    """
    ax = new_axes(ax)
    rows = frame.assign(_level=_ONE if hue is None else frame[hue].astype(str)).dropna(subset=[x])
    data = rows.dropna(subset=[y])
    levels = list(dict.fromkeys(data["_level"]))
    known = dict(level_styles(levels) if styles is None else styles)
    shown = [level for level in known if level in levels]
    before = len(ax.lines)
    if shown:  # seaborn warns about a palette without data
        sns.lineplot(
            data[data["_level"].isin(shown)],
            x=x,
            y=y,
            hue="_level",
            hue_order=shown,
            palette={level: known[level].ink for level in shown},
            style="_level" if markers else None,
            style_order=shown,
            dashes=False,
            markers={level: known[level].marker for level in shown} if markers else False,
            markersize=4,
            markeredgewidth=0,
            estimator=None,
            errorbar=None,
            legend=False,
            ax=ax,
        )
    for line, level in zip(ax.lines[before:], shown, strict=True):
        style, part = known[level], rows[rows["_level"] == level].sort_values(x)
        line.set_data(part[x], part[y])  # seaborn connects points across a missing mean; it has to be a gap
        width, order = (2.6, 4) if style.highlighted else (1.4, 2)
        line.set(linestyle=style.dash, linewidth=width, zorder=order)
        if markers and style.highlighted:
            line.set_markersize(8)
        line.set_label(for_plot(level))
        if error is not None:
            low, high = part[y] - part[error], part[y] + part[error]
            ax.fill_between(part[x], low, high, color=style.ink, alpha=BAND_OPACITY, linewidth=0)
    if shown:
        drawn = data[data["_level"].isin(shown)]
        errors = 0 if error is None else drawn[error].fillna(0)
        keep_span(ax, pd.concat([drawn[y] - errors, drawn[y] + errors]).to_numpy(dtype=float), natural)
    if whole_numbers:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(ax, xlabel=x if xlabel is None else xlabel, ylabel=y if ylabel is None else ylabel, title=title)
    if legend and hue is not None and shown:
        ax.legend(fontsize=TICK, frameon=False)
    return ax


def mark_number(ax: Axes, place: float, label: str | None = None, colour: str = ACCENT) -> None:
    """A dashed vertical line at a number of the x axis, such as a default or a choice; the label is for a legend."""
    ax.axvline(place, color=colour, linestyle="--", linewidth=1, label=None if label is None else for_plot(label))
