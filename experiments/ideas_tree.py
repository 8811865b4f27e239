"""Picture of the package's folders and their one rule, read from the contract that `make lint` checks."""

import tomllib
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from caap_lab.plots.style import new_figure
from experiments.ideas_ink import Ink

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
WIDTH, ROW = 9.2, 0.34
"""Inches."""


def layers() -> list[list[str]]:
    """Modules of each layer, from the top."""
    (contract,) = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return [layer.split(" | ") for layer in contract["layers"]]


def tree_figure(ink: Ink) -> Figure:
    """One row of boxes per layer; a module imports only from rows below its own."""
    rows = layers()
    height = ROW * len(rows) + 0.2
    figure = new_figure(WIDTH, height, layout=None)
    figure.set_facecolor(ink.paper)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    left, right = 1.5, WIDTH - 0.15
    for place, names in enumerate(rows):
        top, width = 0.13 + place * ROW, (right - left) / len(names)
        for column, name in enumerate(names):
            box = FancyBboxPatch(
                (left + column * width + 0.06, top + 0.03),
                width - 0.12,
                ROW - 0.08,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=ink.blank,
                edgecolor="none",
            )
            ax.add_patch(box)
            middle = (left + (column + 0.5) * width, top + ROW / 2 - 0.01)
            size = 9 if len(names) < 7 else 8
            ax.text(*middle, name, ha="center", va="center", fontsize=size, color=ink.text, family="monospace")
    arrow = {"arrowstyle": "-|>", "color": ink.accent, "linewidth": 2.5}
    ax.annotate("", (1.15, height - 0.2), (1.15, 0.2), arrowprops=arrow)
    ax.text(
        0.95, height / 2, "imports point down only", rotation=90, ha="right", va="center", fontsize=10, color=ink.accent
    )
    return figure
