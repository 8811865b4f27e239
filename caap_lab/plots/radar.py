"""One number per model and method, as one line per method around a circle."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from caap_lab.escaping import for_plot
from caap_lab.plots.style import TICK, TITLE, Styles, level_styles


def plot_radar(
    table: pd.DataFrame,
    figure: Figure,
    place: tuple[int, int, int] = (1, 1, 1),
    *,
    styles: Styles | None = None,
    title: str = "",
) -> Any:
    """One spoke per row of the table, one closed line per column.

    Args:
        table: Numbers in one unit; the index names the spokes, the columns name the lines.
        figure: Figure to draw in: the axes are polar, so existing axes cannot be used.
        place: Position of the axes in the figure, as in `Figure.add_subplot`.
        styles: Colour, dash and marker of each line; by default those of `level_styles`.
        title: Title of the axes.

    Returns:
        The polar axes.
    """
    ax: Any = figure.add_subplot(*place, projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(table), endpoint=False)
    known = level_styles(list(table)) if styles is None else styles
    for name in table:
        style, values = known[name], table[name].to_numpy()
        ax.plot(
            np.append(angles, angles[0]),
            np.append(values, values[0]),
            color=style.ink,
            linestyle=style.dash,
            linewidth=2.6 if style.highlighted else 1.1,
            marker=style.marker,
            markersize=8 if style.highlighted else 4,
            zorder=4 if style.highlighted else 3,
            label=for_plot(str(name)),
        )
    ax.set_xticks(angles, [for_plot(str(name)) for name in table.index], fontsize=TICK)
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.tick_params(axis="x", pad=5)
    for label, side in zip(ax.get_xticklabels(), np.sin(angles), strict=True):  # names do not touch the rim
        label.set_horizontalalignment("left" if side > 0.1 else "right" if side < -0.1 else "center")
    ax.set_ylim(min(0.0, float(np.nanmin(table.to_numpy()))), None)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    _number_rings(ax, np.pi / len(table))
    if title:
        ax.set_title(for_plot(title), fontsize=TITLE, pad=20)
    return ax


def _number_rings(ax: Any, angle: float) -> None:
    """The numbers of the rings in front of the lines, on a light background, between two spokes."""
    low, high = ax.get_ylim()
    ax.set_yticks([ring for ring in ax.get_yticks() if low <= ring <= high], labels=[])
    ax.set_ylim(low, high)
    ground: Any = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
    for ring in ax.get_yticks():
        ax.text(angle, ring, f"{ring:z.6g}", fontsize=7, ha="center", va="center", zorder=5, bbox=ground)
