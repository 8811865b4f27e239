"""Neighbourhoods on a grid, as patch numbers and masks."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from caap_lab.models.neighbourhoods import Neighbourhood, find_neighbourhood


def neighbourhood_table(grid: tuple[int, int], kind: str | Neighbourhood) -> Int[Tensor, "patch neighbour"]:
    """Patch numbers (not token numbers) of each patch's neighbourhood, the patch itself first; -1 where clipped.

    Args:
        grid: Rows and columns.
        kind: A neighbourhood, or its name.
    """
    chosen = find_neighbourhood(kind) if isinstance(kind, str) else kind
    offsets = sorted(chosen, key=lambda o: o != (0, 0))
    rows, cols = grid
    down, right = torch.tensor(offsets, dtype=torch.long, device="cpu").T
    row = torch.arange(rows, device="cpu").repeat_interleave(cols)[:, None] + down
    col = torch.arange(cols, device="cpu").repeat(rows)[:, None] + right
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    return torch.where(inside, row * cols + col, -1)


def table_masks(table: Int[Tensor, "patch neighbour"]) -> Bool[Tensor, "patch patch"]:
    """The neighbourhoods of a table as masks: row i is True at the patches of S_i."""
    count = len(table)
    # The extra last column collects the -1 of clipped neighbours.
    masks = torch.zeros(count, count + 1, dtype=torch.bool, device="cpu").scatter_(1, table % (count + 1), True)
    return masks[:, :-1]


def set_table(masks: Bool[Tensor, "set patch"]) -> Int[Tensor, "set member"]:
    """Patch numbers of each set of patches, ascending, padded with -1 to the size of the largest set."""
    width = int(masks.sum(dim=1).max())
    members = masks.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return torch.where(masks.gather(1, members), members, -1)
