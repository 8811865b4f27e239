"""Boxes of patches."""

from collections.abc import Sequence

import numpy as np

from caap_lab.widgets.board import Board


def box_cells(grid: tuple[int, int], box: Sequence[int]) -> list[int]:
    """Numbers of the patches of a box, including its last row and column."""
    top, left, bottom, right = box
    return np.arange(grid[0] * grid[1]).reshape(grid)[top : bottom + 1, left : right + 1].reshape(-1).tolist()


def box_of(grid: tuple[int, int], cells: Sequence[int]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom and right (the last two inside it) of the box that these patches form; None for no box."""
    if not cells:
        return None
    rows, cols = np.divmod(np.asarray(cells), grid[1])
    box = int(rows.min()), int(cols.min()), int(rows.max()), int(cols.max())
    return box if box_cells(grid, box) == sorted(cells) else None


def paint_box(board: Board, grid: tuple[int, int]) -> None:
    """Paint the patches of the box drawn on a board, in addition to those already painted, and remove the box."""
    if board.box:
        cells = box_cells(grid, board.box)
        board.box = []
        board.painted = sorted({*board.painted, *cells})
