"""Means by name, as points with their standard errors: settings next to each other, or methods by rank."""

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from caap_lab.escaping import for_plot
from caap_lab.plots.spans import keep_span
from caap_lab.plots.style import TICK, LevelStyle, Styles, grey, level_styles, new_axes, style_axes

_ONE = "mean"
"""The only level if there is no `hue`."""
_STEP = 0.15
"""Distance between the points of one category, which share a width of 1."""


def plot_points(
    frame: pd.DataFrame,
    category: str,
    value: str = "mean",
    *,
    error: str = "se",
    reference: str | None = None,
    hue: str | None = None,
    ax: Axes | None = None,
    styles: Styles | None = None,
    horizontal: bool = False,
    beside: bool = True,
    natural: tuple[float, float] | None = None,
    label: str | None = None,
    category_label: str = "",
    title: str = "",
    legend: bool = True,
) -> Axes:
    """One mark per category and level of `hue`, with a bar of one standard error to both sides.

    The numbers drawn are those of the frame: no mean and no error is computed here.

    Args:
        frame: One row per mark.
        category: Column of the names along one axis, in the order of their first rows.
        value: Column of the means.
        error: Column of their standard errors.
        reference: Column of numbers to compare with, such as published means: hollow marks at the same positions.
        hue: Column whose levels have different marks; None for one kind of mark.
        ax: Axes to draw in; by default those of a new figure.
        styles: Colour and marker of each level, in the order of the legend; by default those of `level_styles`.
        horizontal: Names on the y axis, the first on top, for long names; otherwise on the x axis.
        beside: Draw the marks of one category next to each other, not at one position.
        natural: Possible range of the means, such as `caap_lab.plots.spans.PERCENT`; their axis spans at least a
            quarter of it, see `value_span`.
        label: The quantity of the means, with its unit; by default the column's name.
        category_label: Label of the names.
        title: Title of the axes.
        legend: Draw a legend if there is a `hue`.
    """
    ax = new_axes(ax)
    data = frame.assign(_level=_ONE if hue is None else frame[hue].astype(str))
    data[category] = [for_plot(str(name)) for name in data[category]]
    levels = list(dict.fromkeys(data["_level"]))
    known = dict(level_styles(levels) if styles is None else styles)
    order = list(known)
    names = list(dict.fromkeys(data[category]))
    # Seaborn computes estimates; of three rows per point, the median is the mean and the full range is its error bar.
    bounds = (data[value] - data[error], data[value], data[value] + data[error])
    rows = pd.concat([data.assign(_value=bound) for bound in bounds], ignore_index=True)
    before = len(ax.lines)
    sns.pointplot(
        rows[rows["_level"].isin(order)],
        x="_value" if horizontal else category,
        y=category if horizontal else "_value",
        order=names,
        hue="_level",
        hue_order=order,
        palette=[known[level].ink for level in order],
        markers=[known[level].marker for level in order],
        linestyles="none",
        dodge=min(_STEP, 0.8 / len(order)) * (len(order) - 1) if beside and len(order) > 1 else False,
        estimator="median",
        errorbar=("pi", 100),
        capsize=0 if horizontal else 0.6 * min(_STEP, 0.8 / len(order)),
        markersize=5,
        markeredgewidth=0,
        err_kws={"linewidth": 1.1},
        orient="y" if horizontal else "x",
        legend=False,
        ax=ax,
    )
    marks = [line for line in ax.lines[before:] if line.get_marker() not in ("", "None", None)]
    for line, level in zip(marks, order, strict=True):
        if level in levels:
            line.set_label(for_plot(level))
        if known[level].highlighted:
            line.set(zorder=line.get_zorder() + 1, markersize=8)
        if reference is not None:
            numbers = data[data["_level"] == level].groupby(category)[reference].first().reindex(names)
            places = line.get_ydata() if horizontal else line.get_xdata()
            x, y = (numbers, places) if horizontal else (places, numbers)
            mark_reference(ax, x, y, known[level])
    shown = rows.loc[rows["_level"].isin(order), "_value"].fillna(rows[value])
    if reference is not None:
        shown = pd.concat([shown, data[reference]])
    keep_span(ax, shown.to_numpy(dtype=float), natural, vertical=not horizontal)
    if not horizontal:
        ax.tick_params(axis="x", rotation=30)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    numbers = value if label is None else label
    x_label, y_label = (numbers, category_label) if horizontal else (category_label, numbers)
    style_axes(ax, xlabel=x_label, ylabel=y_label, title=title)
    if legend and hue is not None:
        ax.legend(fontsize=TICK, frameon=False)
    return ax


def mark_reference(ax: Axes, x: Any, y: Any, style: LevelStyle) -> None:
    """Hollow marks of numbers to compare with, larger than those of a level's own numbers, and above them."""
    size = 10 if style.highlighted else 7
    ax.plot(
        x, y, marker=style.marker, markersize=size, markerfacecolor="none", markeredgecolor=style.ink,
        markeredgewidth=0.9, linestyle="none", zorder=6, label="_reference",
    )  # fmt: skip


def reference_key(label: str) -> Line2D:
    """An entry for a legend that explains hollow marks."""
    return Line2D([], [], marker="o", markersize=6, color="none", markeredgecolor=grey(0.3), label=for_plot(label))
