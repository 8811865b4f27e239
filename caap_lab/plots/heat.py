"""Tables of numbers as heat maps."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from caap_lab.escaping import for_plot
from caap_lab.plots.style import (
    ACCENT,
    COLOUR_MAP,
    LABEL,
    SIGNED_COLOUR_MAP,
    TICK,
    label_bar,
    letters_in,
    new_axes,
    title_axes,
)
from caap_lab.plots.wrapping import wrapped

_NAME_LETTERS = 18
"""Letters per line of a row's or column's label; more for rows that have no room for its lines."""
_LINE = 1.25
"""Height of a line, in font sizes."""
_NAME_SHARE = 0.4
"""Largest share of the figure's width for a row's label."""


def plot_heat(
    cells: pd.DataFrame,
    ax: Axes | None = None,
    *,
    label: str,
    signed: bool = False,
    colour_map: str | None = None,
    limits: tuple[float, float] | None = None,
    number_format: str | None = None,
    highlight: tuple[int, int] | None = None,
    highlight_label: str = "default",
    xlabel: str | None = None,
    ylabel: str | None = None,
    title: str = "",
) -> Axes:
    """One colour per number, with a colour bar; NaN cells are empty.

    Args:
        cells: The numbers; index and columns are the labels of the rows and columns.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity, with its unit.
        signed: Centre the colours on 0.
        colour_map: A matplotlib colour map; by default one that fits the sign.
        limits: Numbers at the two ends of the colours; by default the lowest and highest number.
        number_format: Format in which numbers are written into the cells, such as ".2f"; None for no numbers.
        highlight: A cell to be outlined: row and column, counted from 0.
        highlight_label: Meaning of the outlined cell, for a legend.
        xlabel: Label of the columns; by default the name of the columns.
        ylabel: Label of the rows; by default the name of the index.
        title: Title of the axes.
    """
    ax = new_axes(ax)
    numbers = cells.to_numpy(float)
    if limits is None and signed:
        limit = float(np.nanmax(np.abs(numbers), initial=0)) or 1.0
        limits = (-limit, limit)
    low, high = (None, None) if limits is None else limits
    sns.heatmap(
        pd.DataFrame(numbers, index=_row_names(cells.index, ax), columns=_names(cells.columns)),
        ax=ax,
        cmap=colour_map or (SIGNED_COLOUR_MAP if signed else COLOUR_MAP),
        vmin=low,
        vmax=high,
        annot=number_format is not None,
        fmt=number_format or "",
        annot_kws={"fontsize": 7},
        xticklabels=_every(cells.columns),
    )
    bar = ax.collections[0].colorbar
    assert bar is not None
    label_bar(bar, label, LABEL)
    bar.ax.tick_params(labelsize=TICK)
    bar.outline.set_visible(False)
    if highlight is not None:
        row, col = highlight
        box = Rectangle((col, row), 1, 1, fill=False, edgecolor=ACCENT, linewidth=2, label=for_plot(highlight_label))
        box.set_clip_on(False)
        ax.add_patch(box)
    ax.tick_params(labelsize=TICK, length=2)
    ax.tick_params(axis="y", labelrotation=0)
    ax.set_xlabel(for_plot(str(cells.columns.name or "") if xlabel is None else xlabel), fontsize=LABEL)
    ax.set_ylabel(for_plot(str(cells.index.name or "") if ylabel is None else ylabel), fontsize=LABEL)
    title_axes(ax, title)
    return ax


def _names(index: pd.Index, letters: int = _NAME_LETTERS) -> list[str]:
    """Labels in lines, so that long ones leave room for the cells."""
    return [for_plot(wrapped(str(name), letters)) for name in index]


def _row_names(index: pd.Index, ax: Axes) -> list[str]:
    """Labels in as many lines as a row has room for, if that leaves most of the figure's width to the cells."""
    points = 72 * ax.get_window_extent().height / ax.figure.dpi / max(len(index), 1)
    room = max(1, int(points / (_LINE * TICK)))
    widest = letters_in(_NAME_SHARE * ax.figure.bbox.width / ax.figure.dpi, TICK)
    for letters in range(_NAME_LETTERS, widest):
        names = _names(index, letters)
        if all(name.count("\n") < room for name in names):
            return names
    return _names(index, max(widest, _NAME_LETTERS))


def _every(columns: pd.Index) -> int | str:
    """For many numbers, only as many as there is room for below axes of the usual width."""
    if len(columns) <= 30 or not pd.api.types.is_numeric_dtype(columns):
        return "auto"
    return -(-len(columns) * (len(str(columns[-1])) + 1) // 48)
