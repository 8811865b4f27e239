"""Paths between parts of a model as a graph: layers from bottom to top, heads side by side."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, TICK, in_lines, new_axes, style_axes

_POSITIVE, _NEGATIVE = COLOURS[1], COLOURS[0]
_DASH = (0, (2.5, 1))
_WIDEST = 4.5
"""Line width of the strongest path, in points."""
_HALF_BOX = 0.16
"""Half the height of a part's box, in layers."""


def plot_circuit(
    nodes: pd.DataFrame, edges: pd.DataFrame, ax: Axes | None = None, *, label: str, title: str = ""
) -> Axes:
    """One box per part, one line per path: its width is the size of the effect, its colour and dashes the sign.

    Args:
        nodes: One row per part: `node`, its name; `layer`, its height; `column`, its head, or -1 for other parts.
        edges: One row per path: `sender` and `receiver` (names of nodes), `effect`, and `read`, the input of the
            receiver ("q", "k", "v"), which is written at the end of the line.
        ax: Axes to draw in; by default those of a new figure.
        label: The quantity of the effects, with its unit.
        title: Title of the axes.
    """
    columns = sorted({column for column in nodes["column"] if column >= 0})
    right = len(columns)  # column of the parts that are not heads: to the right of all heads
    placed = zip(nodes["node"], nodes["column"], strict=True)
    x: dict[str, float] = {node: columns.index(column) if column >= 0 else right for node, column in placed}
    y = dict(zip(nodes["node"], nodes["layer"], strict=True))
    x |= dict.fromkeys({"embed", "logits"} & set(x), (max(x.values(), default=0)) / 2)
    span = max(y.values(), default=0) - min(y.values(), default=0)
    ax = new_axes(ax, 3.2 + 0.8 * right, 1.8 + 0.62 * (span + 1))
    largest = float(edges["effect"].abs().max()) if len(edges) else 1.0
    for edge in edges.iloc[::-1].itertuples():  # the strongest on top
        offset = {"q": -0.25, "k": 0.0, "v": 0.25}.get(edge.read, 0.0)
        start = (x[edge.sender], y[edge.sender] + _HALF_BOX)
        end = (x[edge.receiver] + offset, y[edge.receiver] - _HALF_BOX)
        passes_others = abs(start[0] - x[edge.receiver]) < 0.5 and end[1] - start[1] > 1
        line = FancyArrowPatch(
            start,
            end,
            arrowstyle="-",
            connectionstyle=f"arc3,rad={0.25 if passes_others else 0.0}",
            color=_POSITIVE if edge.effect >= 0 else _NEGATIVE,
            linestyle="-" if edge.effect >= 0 else _DASH,
            linewidth=max(0.5, _WIDEST * abs(edge.effect) / (largest or 1.0)),
            alpha=0.8,
            capstyle="butt",
            zorder=2,
        )
        ax.add_patch(line)
    read = {(edge.receiver, edge.read) for edge in edges.itertuples() if edge.read}
    for receiver, part in sorted(read):
        mark: dict[str, Any] = {"boxstyle": "circle,pad=0.12", "facecolor": "0.92", "edgecolor": "none"}
        place = (x[receiver] + {"q": -0.25, "k": 0.0, "v": 0.25}[part], y[receiver] - _HALF_BOX - 0.02)
        ax.text(*place, part, color="black", fontsize=TICK - 2, ha="center", va="top", zorder=4, bbox=mark)
    for node in x:
        box: dict[str, Any] = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "0.3", "linewidth": 0.8}
        centred: dict[str, Any] = {"ha": "center", "va": "center"}
        ax.text(x[node], y[node], for_plot(node), color="black", fontsize=TICK, bbox=box, zorder=5, **centred)
    ax.set_xlim(-0.7, max(x.values(), default=0) + 0.7)
    ax.set_ylim(min(y.values(), default=0) - 0.5, max(y.values(), default=0) + 0.5)
    style_axes(ax, ylabel="layer (block)", title=title)
    blocks = {height for node, height in y.items() if node not in ("embed", "logits") and height == int(height)}
    ax.set_yticks(sorted(blocks), [f"{height:.0f}" for height in sorted(blocks)])
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.grid(axis="x", visible=False)
    key = [
        Line2D([], [], color=_POSITIVE, linewidth=2, label="positive"),
        Line2D([], [], color=_NEGATIVE, linewidth=2, linestyle=_DASH, label="negative"),
    ]
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2, "frameon": False}
    about = in_lines(f"{label}; widest: {largest:.3g}", ax.get_window_extent().width / ax.figure.dpi, TICK)
    legend = ax.legend(handles=key, title=about, title_fontsize=TICK, fontsize=TICK, **where)
    legend.get_title().set_multialignment("center")
    return ax
