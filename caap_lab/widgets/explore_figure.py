"""The explorer's state as a figure, with the display settings of the browser."""

from collections.abc import Sequence
from itertools import chain, islice

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caap_lab.plots.maps import outline_patches, plot_image
from caap_lab.plots.style import ACCENT, COLOURS, new_figure, title_figure
from caap_lab.widgets.board import Board
from caap_lab.widgets.board_figure import plot_as_shown
from caap_lab.widgets.explore_shown import Ranges, Rows, Shown, shared_ranges

BOX_COLOUR = COLOURS[4]
"""The browser's colours; the chosen patch has the accent colour."""
WIDEST = 5
"""Panels per line."""
PANEL = 3.0
"""Width of a panel in inches; a fifth of it is for the colour bar."""


def explore_figure(title: str, rows: Rows, board: Board) -> Figure:
    """Photos and maps with their scales; the highest patches, the chosen patch and the box are outlined.

    Args:
        title: Title of the figure.
        rows: The photos and maps; maps that are not computed yet are omitted.
        board: The board, for its display settings, the chosen patch and the box.
    """
    locked = shared_ranges(rows) if board.lock else {}
    lines = list(
        chain.from_iterable(_lines([shown for shown in row if shown.m is not None or not shown.method]) for row in rows)
    )
    columns = max(map(len, lines), default=1)
    height, width = rows[0][0].photo.pixels.shape[:2]
    figure = new_figure(0.4 + PANEL * columns, 0.3 + (0.8 * PANEL * height / width + 0.35) * len(lines))
    panels = figure.subplots(len(lines), columns, squeeze=False)
    for line, axes in zip(lines, panels, strict=True):
        for shown, ax in zip(line, axes, strict=False):
            _draw(shown, ax, board, locked.get(shown.key))
        for ax in axes[len(line) :]:
            ax.set_axis_off()
    title_figure(figure, title, 10)
    return figure


def _lines(row: Sequence[Shown]) -> list[list[Shown]]:
    """The panels of a row, split into lines that are not too wide."""
    waiting = iter(row)
    return list(iter(lambda: list(islice(waiting, WIDEST)), []))


def _draw(shown: Shown, ax: Axes, board: Board, locked: Ranges | None) -> None:
    size = (shown.photo.pixels.shape[0], shown.photo.pixels.shape[1])
    grid = shown.grid
    if shown.m is None:
        plot_image(shown.photo.pixels, ax, title=shown.caption)
    else:
        grid = shown.m.grid
        plot_as_shown(
            ax,
            shown.scores,
            shown.photo.pixels,
            board,
            signed=shown.signed,
            limits=None if locked is None else locked["robust" if board.robust else "full"],
            label=shown.m.unit,
            title=shown.caption,
        )
    if board.box:
        outline_patches(ax, grid, size, board.box, BOX_COLOUR)
    if board.chosen and shown.grid == grid:
        outline_patches(ax, grid, size, board.chosen, ACCENT)
