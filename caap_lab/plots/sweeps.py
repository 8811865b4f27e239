"""Means over the settings of a sweep, for all kinds of settings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lines import mark_number, plot_lines
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import ACCENT, COLOURS, MARKERS, TICK, LevelStyle, new_axes, title_axes

AXIS_LABELS = {
    "cutoff": "cutoff (number of blocks patched from the first on)",
    "start": "start (first patched block)",
}
_MEAN, _EXACT, _DEFAULT = "mean ± standard error", "value", "default"
_VALUES = LevelStyle(COLOURS[0], "-", MARKERS[0])
_STYLES = {_MEAN: _VALUES, _EXACT: _VALUES, _DEFAULT: LevelStyle(ACCENT, "--", MARKERS[1])}
"""Marks also differ in shape."""


def plot_sweep(
    frame: pd.DataFrame,
    axes: Sequence[str],
    ax: Axes | None = None,
    *,
    label: str,
    default: Any = None,
    title: str = "",
) -> Axes:
    """A line over numbers, points over names, or a heat map over pairs of numbers.

    Args:
        frame: One row per setting: its label or labels, mean, se.
        axes: The columns of the labels: one, or two for pairs of whole numbers.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity of the means, with its unit.
        default: The setting that is marked as the default; a pair if there are two axes.
        title: Title of the axes.
    """
    ax = new_axes(ax, height=3.4)
    if len(axes) == 2:
        _pairs(frame, axes, ax, label, default)
    elif pd.api.types.is_numeric_dtype(frame[axes[0]]) and not pd.api.types.is_bool_dtype(frame[axes[0]]):
        _numbers(frame, axes[0], ax, label, default)
    else:
        _names(frame, axes[0], ax, label, default)
    if ax.get_legend_handles_labels()[0]:  # pairs without the default have no labels
        ax.legend(fontsize=TICK, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
    title_axes(ax, title, pad=20)
    return ax


def _numbers(frame: pd.DataFrame, axis: str, ax: Axes, label: str, default: Any) -> None:
    frame = frame.assign(line=_values_name(frame))
    xlabel = AXIS_LABELS.get(axis, axis)
    plot_lines(
        frame,
        axis,
        hue="line",
        ax=ax,
        styles=_STYLES,
        markers=True,
        whole_numbers=pd.api.types.is_integer_dtype(frame[axis]),
        xlabel=xlabel,
        ylabel=label,
        legend=False,
    )
    if default is not None:
        mark_number(ax, default, _DEFAULT)


def _names(frame: pd.DataFrame, axis: str, ax: Axes, label: str, default: Any) -> None:
    values = _values_name(frame)
    names = [_DEFAULT if name == default else values for name in frame[axis]]
    frame = frame.assign(mark=names)
    styles = {name: style for name, style in _STYLES.items() if name in names}
    options = {"label": label, "category_label": axis, "styles": styles}
    plot_points(frame, axis, hue="mark", ax=ax, beside=False, legend=False, **options)  # type: ignore[arg-type]


def _values_name(frame: pd.DataFrame) -> str:
    """One image has a value and no standard error."""
    return _MEAN if (frame["se"] > 0).any() else _EXACT


def _pairs(frame: pd.DataFrame, axes: Sequence[str], ax: Axes, label: str, default: Any) -> None:
    rows, cols = (np.arange(frame[axis].min(), frame[axis].max() + 1) for axis in axes)
    cells = frame.pivot(index=axes[0], columns=axes[1], values="mean").reindex(index=rows, columns=cols)
    place = None if default is None else (int(default[0] - rows[0]), int(default[1] - cols[0]))
    # The second axis is labelled like the first, but here it is the end of a range.
    xlabel = "cutoff (block after the last patched one)" if axes[1] == "cutoff" else AXIS_LABELS.get(axes[1], axes[1])
    ylabel = AXIS_LABELS.get(axes[0], axes[0])
    plot_heat(cells, ax, label=label, highlight=place, xlabel=xlabel, ylabel=ylabel)
