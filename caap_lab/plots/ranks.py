"""Methods by their mean rank over images, with bars that join methods without a significant difference."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, HIGHLIGHT, grey, new_axes, on_ground, style_axes

_WIDTH, _HEAD, _ROW = 3.35, 0.85, 0.135
"""Inches: width of a paper's column; height above and below the methods; height per method."""
_LETTERS, _LETTER = 24, 0.055
"""Letters of the longest name that a column has room for, and inches for each further one."""
_NAME = 6.5
"""Font size in points: the minimum that publishers require, at this width."""
_BAR = 0.055
"""Inches from one bar to the next. A fraction of the axes' width would change while the figure is laid out."""


def plot_ranks(
    frame: pd.DataFrame, difference: float, *, highlighted: str = "CAAP", title: str = "", ax: Axes | None = None
) -> Axes:
    """One point per method at its mean rank, the best on top, with a bar of one standard error to both sides.

    The bars on the right join methods whose mean ranks differ by less than the critical difference: no two methods of
    one bar are distinguishable, and of two methods without a common bar the upper one is better.

    Args:
        frame: One row per method: `method`, `mean_rank` and its standard error `se`.
        difference: The critical difference, in ranks; NaN if there is none, as for a single method.
        highlighted: The method drawn with a star, and with a band as wide as the critical difference to both sides.
        title: Title of the axes.
        ax: Axes to draw in; by default those of a new figure, as wide as a column of a paper, or wider for long names.
    """
    table = frame.sort_values("mean_rank", kind="stable", ignore_index=True)
    longer = max(0, max(len(str(name)) for name in table["method"]) - _LETTERS)
    ax = new_axes(ax, _WIDTH + _LETTER * longer, _HEAD + _ROW * len(table))
    means, places = table["mean_rank"].to_numpy(float), np.arange(len(table))
    chosen = [str(name).lower() == highlighted.lower() for name in table["method"]]
    for mean, error, place, star in zip(means, table["se"], places, chosen, strict=True):
        colour = on_ground(HIGHLIGHT) if star else COLOURS[0]
        ax.errorbar(
            mean, place, xerr=error, fmt="*" if star else "o", color=colour, markersize=8 if star else 3.5,
            elinewidth=1, zorder=4 if star else 3,
        )  # fmt: skip
        if star and not np.isnan(difference):
            ax.axvspan(mean - difference, mean + difference, color=grey(0.93), linewidth=0, zorder=0)
    errors = table["se"].fillna(0)  # one image shows none
    known = np.concatenate([means - errors, means + errors])
    low = max(known.min(), 1.0)
    high = max(known.max(), low + 1)  # a rank at least, or ticks would lie between ranks
    room = 0.04 * (high - low)
    ax.set_xlim(low - room, high + room)
    ax.set_yticks(places, [for_plot(str(name)) for name in table["method"]])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for column, (first, last) in _columns(joining_bars(means, difference)):
        beside = ScaledTranslation(_BAR * (1.5 + column), 0, ax.figure.dpi_scale_trans)
        ax.plot(
            [1, 1], [first - 0.25, last + 0.25], color=grey(0.25), linewidth=1.6, solid_capstyle="butt",
            transform=ax.get_yaxis_transform() + beside, clip_on=False,
        )  # fmt: skip
    told = "" if np.isnan(difference) else f" (critical difference {difference:.1f})"
    style_axes(ax, xlabel=f"mean rank, 1 is best{told}", title=title)
    ax.grid(axis="y", color=grey(0.95))
    ax.tick_params(axis="both", labelsize=_NAME, length=2)
    for label, star in zip(ax.get_yticklabels(), chosen, strict=True):
        label.set_fontweight("bold" if star else "normal")
    ax.xaxis.label.set_fontsize(_NAME + 0.5)
    ax.title.set_fontsize(_NAME + 1)
    return ax


def joining_bars(ranks: Float[np.ndarray, " method"], difference: float) -> list[tuple[int, int]]:
    """First and last index of each bar: all methods within the critical difference, without bars inside another bar.

    Args:
        ranks: Mean ranks in rising order.
        difference: Minimum difference at which two methods are distinguishable.
    """
    bars: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = int(np.flatnonzero((ranks - rank < difference) | (ranks == rank))[-1])
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return bars


def _columns(bars: list[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    """Each bar with the first column in which there is room for it."""
    ends: list[int] = []
    placed = []
    for bar in bars:
        column = next((place for place, end in enumerate(ends) if end < bar[0]), len(ends))
        ends[column : column + 1] = [bar[1]]
        placed.append((column, bar))
    return placed
