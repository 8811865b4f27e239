"""Picture of why one pass gives the scores of all patches: which keys each patch's class token may read."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from caap_lab.plots.style import new_figure
from experiments.ideas_ink import Ink

PATCHES = 8
"""In a row, each with its two neighbours as S_i."""


def groups_figure(ink: Ink) -> Figure:
    """Keys that are read before the cutoff and after it: one row per patch, all rows in one pass."""
    figure = new_figure(9.2, 3.6)
    figure.set_facecolor(ink.paper)
    before, after = figure.subplots(1, 2, width_ratios=(2 * PATCHES + 1, 2 * PATCHES + 1))
    inside = np.abs(np.subtract.outer(np.arange(PATCHES), np.arange(PATCHES))) <= 1
    own = np.eye(PATCHES, dtype=bool)
    _mask(before, [(~inside, 1, "keys of the blank run"), (inside, 2, "keys of the source run"), (own, 3, "own")], ink)
    before.set_title("blocks before the cutoff", fontsize=10, color=ink.text, weight="bold")
    before.set_ylabel("class token of patch i", fontsize=8.5, color=ink.text)
    groups = np.ones((PATCHES, 4), dtype=bool)
    groups[0, 1] = groups[-1, 3] = False  # no neighbour beyond the border
    _mask(after, [(~inside, 1, "keys of the blank run"), (groups, 3, "own group:\nclass token, S_i")], ink)
    after.set_title("blocks from the cutoff on", fontsize=10, color=ink.text, weight="bold")
    names = ("blank: computed once", "source: computed once per image", "live: one group per patch", "not read")
    handles = [Patch(facecolor=colour) for colour in (ink.blank, ink.source, ink.live)]
    handles.append(Patch(facecolor=ink.paper, edgecolor=ink.blank))
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=ink.text)
    return figure


def _mask(ax: Axes, parts: list[tuple[np.ndarray, int, str]], ink: Ink) -> None:
    """Draw the keys that each row reads, with the parts side by side."""
    gap = np.zeros((PATCHES, 1), dtype=int)
    columns: list[np.ndarray] = []
    start = 0
    for mask, kind, name in parts:
        columns += [mask * kind, gap]
        ax.text(start + mask.shape[1] / 2, PATCHES + 0.25, name, ha="center", va="top", fontsize=8.5, color=ink.text)
        start += mask.shape[1] + 1
    colours = ListedColormap([ink.paper, ink.blank, ink.source, ink.live])
    ax.set_facecolor(ink.paper)
    found = np.concatenate(columns[:-1], axis=1)
    ax.pcolormesh(found, cmap=colours, vmin=-0.5, vmax=3.5, edgecolors=ink.paper, linewidth=1.5)
    start = 0
    for mask, _, _ in parts:  # a frame around each part shows what is not read
        ax.plot(
            [start, start + mask.shape[1], start + mask.shape[1], start, start],
            [0, 0, PATCHES, PATCHES, 0],
            color=ink.blank,
            linewidth=1,
            clip_on=False,
        )
        start += mask.shape[1] + 1
    ax.set_ylim(PATCHES + 1.4, 0)
    ax.set_yticks(np.arange(PATCHES) + 0.5, [f"{row}" for row in range(PATCHES)], fontsize=8, color=ink.text)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
