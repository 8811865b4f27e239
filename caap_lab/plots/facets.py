"""Panels of one figure, each with a part of a table."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from caap_lab.plots.style import new_figure, shared_legend, style_axes


def plot_facets(
    frame: pd.DataFrame,
    draw: Callable[..., Any],
    *,
    column: str,
    row: str | None = None,
    wrap: int | None = None,
    panel: tuple[float, float] = (3.4, 3.0),
    sharex: bool = True,
    sharey: bool = False,
    titles: bool = True,
    legend_columns: int = 6,
    legend_more: Sequence[Line2D] = (),
) -> Figure:
    """One panel per level of one or two columns, with one legend below all panels.

    Like seaborn's facets, but as a figure outside pyplot's state: widgets draw in the background, where pyplot must not
    be used.

    Args:
        frame: The table.
        draw: Function that draws a part, called as `draw(part, ax=ax, legend=False)`, such as a `partial` of
            `plot_lines`.
        column: Column whose levels are panels next to each other.
        row: Column whose levels are rows of panels.
        wrap: Panels in a row, without `row`; by default all.
        panel: Width and height of a panel in inches.
        sharex: All panels share one x axis.
        sharey: All panels share one y axis.
        titles: Write the level of `column` above each panel (with `row`: above the first row only).
        legend_columns: Number of columns of the legend.
        legend_more: Additional entries of the legend, with labels.
    """
    across = _levels(frame, column)
    down = [None] if row is None else _levels(frame, row)
    wide = len(across) if wrap is None or row is not None else min(wrap, len(across))
    high = len(down) if row is not None else -(-len(across) // wide)
    figure = new_figure(panel[0] * wide, panel[1] * high + 0.4)
    panels = figure.subplots(high, wide, sharex=sharex, sharey=sharey, squeeze=False)
    places = [(d, a) for d in down for a in across]
    for ax, (d, a) in zip(panels.flat, places, strict=False):
        part = frame[frame[column] == a]
        draw(part if row is None else part[part[row] == d], ax=ax, legend=False)
        if titles and (row is None or d == down[0]):
            style_axes(ax, title=str(a))
    for ax in panels.flat[len(places) :]:
        ax.set_visible(False)
    for ax in panels.flat[: len(places)]:
        spec = ax.get_subplotspec()
        if sharex and not (spec.is_last_row() or spec.rowspan.start * wide + spec.colspan.start + wide >= len(places)):
            ax.set_xlabel("")
        if sharey and not spec.is_first_col():
            ax.set_ylabel("")
    figure.align_ylabels(panels)
    shared_legend(figure, legend_columns, more=legend_more)
    return figure


def _levels(frame: pd.DataFrame, column: str) -> Sequence[Any]:
    return list(dict.fromkeys(frame[column]))
