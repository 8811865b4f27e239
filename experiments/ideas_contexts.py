"""Pictures of a patched context: what every token is at every block, in one context and in all of them."""

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from caap_lab.engine.settings import CONTEXTS, cutoff_blocks
from caap_lab.plots.style import new_figure
from experiments.ideas_ink import Ink

BLANK, SOURCE, LIVE = range(3)
BLOCKS, PATCHES = 6, 7
BLOCK = slice(3, 6)
"""Rows of S_i, the patch and its neighbours; row 0 is the class token."""
MEANING = {
    "clamped": "S_i evolve after the cutoff;\nothers stay the blank's",
    "free": "S_i evolve after the cutoff;\nothers evolve, too",
    "dropped": "S_i are the blank's again\nafter the cutoff",
    "frozen": "S_i stay the image's\nup to the end",
}
KINDS = ("from the blank's run", "taken from the image's run", "live: computed in this run")


def states(context: str) -> Int[np.ndarray, "token block"]:
    """The input of each block at each token: BLANK, SOURCE or LIVE.

    Args:
        context: One of CAAP's.
    """
    cutoff = cutoff_blocks(None, BLOCKS)
    found = np.full((1 + PATCHES, BLOCKS), LIVE if context == "free" else BLANK)
    found[0] = LIVE
    found[BLOCK, :cutoff] = SOURCE
    found[BLOCK, cutoff:] = {"dropped": BLANK, "frozen": SOURCE}.get(context, LIVE)
    return found


def runs_figure(ink: Ink) -> Figure:
    """The blank's run, the image's run, and the patched context that combines them."""
    figure = new_figure(9.2, 3.5)
    figure.set_facecolor(ink.paper)
    blank_ax, source_ax, patched_ax = figure.subplots(1, 3)
    run = np.full((1 + PATCHES, BLOCKS), BLANK)
    _cells(blank_ax, run, ink, "blank run", "one run per model and blank")
    _cells(source_ax, np.full_like(run, SOURCE), ink, "source run", "one run per image", tokens=False)
    _cells(patched_ax, states("clamped"), ink, "patched context of patch i", "gives score(i)", tokens=False)
    _cutoff(patched_ax, ink, "cutoff")
    _key(figure, ink)
    return figure


def contexts_figure(ink: Ink) -> Figure:
    """All of CAAP's contexts, in which the same tokens are patched."""
    figure = new_figure(9.2, 3.3)
    figure.set_facecolor(ink.paper)
    for place, (ax, context) in enumerate(zip(figure.subplots(1, len(CONTEXTS)), CONTEXTS, strict=True)):
        _cells(ax, states(context), ink, context, MEANING[context], tokens=place == 0)
        if context != "frozen":
            _cutoff(ax, ink, "" if place else "cutoff")
    _key(figure, ink)
    return figure


def _cells(
    ax: Axes, found: Int[np.ndarray, "token block"], ink: Ink, title: str, below: str, *, tokens: bool = True
) -> None:
    """Draw one cell per token and block, in the colour of its kind."""
    ax.set_facecolor(ink.paper)
    colours = ListedColormap([ink.blank, ink.source, ink.live])
    ax.pcolormesh(found, cmap=colours, vmin=-0.5, vmax=2.5, edgecolors=ink.line, linewidth=2)
    ax.invert_yaxis()
    ax.set_title(title, fontsize=10, color=ink.text, weight="bold", pad=16)
    ax.set_xlabel(f"block\n\n{below}", fontsize=8.5, color=ink.text)
    ax.set_xticks(np.arange(BLOCKS) + 0.5, [str(block) for block in range(BLOCKS)], fontsize=8, color=ink.text)
    rows = {0.5: "class token", (BLOCK.start + BLOCK.stop) / 2: "S_i", 2: "other\npatches", 7: "other\npatches"}
    ax.set_yticks(list(rows), list(rows.values()) if tokens else [], fontsize=8, color=ink.text)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _cutoff(ax: Axes, ink: Ink, name: str) -> None:
    place = cutoff_blocks(None, BLOCKS)
    ax.axvline(place, color=ink.accent, linewidth=2, clip_on=False)
    ax.annotate(name, (place, 0), (0, 3), textcoords="offset points", ha="center", fontsize=8.5, color=ink.accent)


def _key(figure: Figure, ink: Ink) -> None:
    handles = [Patch(facecolor=colour) for colour in (ink.blank, ink.source, ink.live)]
    figure.legend(handles, KINDS, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5, labelcolor=ink.text)
