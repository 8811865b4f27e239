"""Paths between parts of a model as a graph: layers from bottom to top, heads side by side."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from caap_lab.escaping import for_plot
from caap_lab.plots.style import COLOURS, LABEL, TICK, new_axes, style_axes

_POSITIVE, _NEGATIVE = COLOURS[1], COLOURS[0]
_WIDEST = 5.0
"""Of the strongest path, in points."""


def plot_circuit(
    nodes: pd.DataFrame, edges: pd.DataFrame, ax: Axes | None = None, *, label: str, title: str = ""
) -> Axes:
    """One box per part, one line per path: its width is the effect's size, colour and dash its sign.

    Args:
        nodes: One row per part: `node`, its name; `layer`, its height; `column`, its head, -1 for what is none.
        edges: One row per path: `sender` and `receiver` (names of nodes), `effect`, and `read`, what of the receiver
            reads ("q", "k", "v"), which is written at the line's end.
        ax: Axes to draw in; by default those of a new figure.
        label: What the effects are, with their unit.
        title: Above the axes.
    """
    ax = new_axes(ax)
    columns = sorted({column for column in nodes["column"] if column >= 0})
    right = len(columns)  # where the parts that are no heads stand: beside all heads
    x = {node: columns.index(at) if at >= 0 else right for node, at in zip(nodes["node"], nodes["column"], strict=True)}
    y = dict(zip(nodes["node"], nodes["layer"], strict=True))
    middle = (right - 1) / 2
    x |= {node: middle for node in x if node in ("embed", "logits")}
    largest = edges["effect"].abs().max() or 1.0
    for edge in edges.iloc[::-1].itertuples():  # the strongest on top
        start, end = (x[edge.sender], y[edge.sender]), (x[edge.receiver], y[edge.receiver])
        offset = {"q": -0.2, "k": 0.0, "v": 0.2}.get(edge.read, 0.0)
        positive = edge.effect >= 0
        ax.annotate(
            "",
            xy=(end[0] + offset, end[1] - 0.17),
            xytext=(start[0], start[1] + 0.17),
            arrowprops={
                "arrowstyle": "-",
                "color": _POSITIVE if positive else _NEGATIVE,
                "linestyle": "-" if positive else (0, (2, 1)),
                "linewidth": max(0.4, _WIDEST * abs(edge.effect) / largest),
                "connectionstyle": f"arc3,rad={0.12 if abs(start[0] - end[0]) < 0.5 else 0.0}",
                "alpha": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
            },
            zorder=1,
        )
        if edge.read:
            place = (end[0] + offset, end[1] - 0.2)
            ax.text(*place, edge.read, fontsize=TICK - 1, ha="center", va="top", zorder=3)
    for node in x:
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "0.3", "linewidth": 0.8}
        ax.text(x[node], y[node], for_plot(node), fontsize=TICK, ha="center", va="center", bbox=box, zorder=2)
    ax.set_xlim(min(x.values()) - 0.6, max(x.values()) + 0.6)
    ax.set_ylim(min(y.values()) - 0.6, max(y.values()) + 0.6)
    style_axes(ax, ylabel="layer (block)", title=title)
    layers = sorted({int(height) for height in y.values() if height >= 0 and height == int(height)})
    ax.set_yticks([layer for layer in layers if layer < max(y.values()) or "logits" not in y])
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.grid(axis="x", visible=False)
    key = [
        Line2D([], [], color=_POSITIVE, linewidth=2, label=f"+, widest {largest:.3g}"),
        Line2D([], [], color=_NEGATIVE, linewidth=2, linestyle=(0, (2, 1)), label="−"),  # noqa: RUF001
    ]
    ax.legend(
        handles=key,
        title=for_plot(label),
        title_fontsize=TICK,
        fontsize=TICK,
        ncols=2,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
    )
    ax.xaxis.label.set_fontsize(LABEL)
    return ax
