"""The choice of patches of an image: the highest of a map, some cells, or all."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from caap_lab.checks import is_whole
from caap_lab.errors import InputError

Cell = tuple[int, int]
"""Row and column of a patch."""
PatchChoice = str | Sequence[Cell]
"""Values that users give: "top10" (or any other number), "all", or a list of cells (row, col)."""


def chosen_patches(
    given: Any, grid: tuple[int, int], count: int, ranked: Callable[[], Sequence[Cell]], least: int = 1
) -> list[Cell]:
    """The chosen cells in the order of the choice; for all patches, row by row.

    Args:
        given: See `PatchChoice`.
        grid: Rows and columns of patches.
        count: Number of images; for several images the choice must be the same for all.
        ranked: All cells, the highest first, for a choice of the highest ones.
        least: How many patches are needed.

    Raises:
        InputError: the choice is not valid, or does not fit the grid.
    """
    check_patches(given, grid, count, least)
    if given == "all":
        return [(row, col) for row in range(grid[0]) for col in range(grid[1])]
    if isinstance(given, str):
        return list(ranked())[: _top(given)]
    return [(int(row), int(col)) for row, col in given]


def is_top(given: Any) -> bool:
    """True for a choice of the highest patches, for which a map is needed first."""
    return isinstance(given, str) and _top(given) > 0


def check_patches(given: Any, grid: tuple[int, int], count: int, least: int = 1) -> None:
    """Raise InputError for an invalid choice of patches before any run; see `chosen_patches`."""
    rows, cols = grid
    if isinstance(given, str):
        number = rows * cols if given == "all" else _top(given)
        if not number:
            raise InputError(f"patches={given!r} is not known; use 'top10', 'all', or a list of cells (row, col).")
        if number > rows * cols:
            raise InputError(f"patches={given!r}: the {rows} x {cols} grid has {rows * cols} patches.")
        if given != "all" and count > 1:
            raise InputError(
                f"patches={given!r} chooses different patches in each of the {count} images; give one image, 'all', or "
                "a list of cells (row, col)."
            )
    else:
        cells = list(given) if isinstance(given, Sequence) or hasattr(given, "__iter__") else []
        for cell in cells:
            if not (isinstance(cell, Sequence) and len(cell) == 2 and all(is_whole(part) for part in cell)):
                raise InputError(
                    f"patches must be 'top10', 'all', or a list of cells (row, col); {cell!r} is not a cell."
                )
            if not (0 <= cell[0] < rows and 0 <= cell[1] < cols):
                raise InputError(
                    f"Cell {tuple(cell)} is outside the {rows} x {cols} grid (rows and columns start at 0)."
                )
        if len(set(map(tuple, cells))) < len(cells):
            raise InputError("patches names a cell twice.")
        number = len(cells)
    if number < least:
        raise InputError(f"patches={given!r} chooses {number} of the patches; at least {least} are needed.")


def _top(given: str) -> int:
    found = re.fullmatch(r"top(\d+)", given)
    return int(found[1]) if found else 0
