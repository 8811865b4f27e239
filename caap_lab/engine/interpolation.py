"""Which rows of the tail are run, and what replaces the others.

A token j is live in the groups of all patches i whose neighbourhood contains it: up to nine contexts with "box1". The
exact tail runs j in each of them. The other tails run it in some and reuse the result in the rest:

    shared          j runs in its own group only, and all groups read that row.
    interpolated    j runs in its own group and in the outermost ones (with "box1": the four at the corners). A
                    context between them is a weighted sum of these rows: with the least weights that would be
                    exact if a row were u + v a + w b + z (a^2 + b^2) in the offset (a, b) from j to the group's
                    patch i (without z if the rows that are run do not determine it). With "box1", inside the grid, an
                    edge's weights are 3/8 for each of the two adjacent corners, 1/2 for the centre and -1/8 for
                    each of the other two corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.engine.rows import take_rows

_DIRECTIONS = (torch.arange(64, dtype=torch.float64, device="cpu") + 0.5) * (pi / 32)
"""None is perpendicular to a line through two offsets of a neighbourhood, so each has exactly one outermost offset."""


@dataclass(frozen=True, eq=False)
class TailRows:
    """Rows that are run, and the groups that read them. Rows are patch rows, numbered from 0."""

    run: Int[Tensor, " row"]
    """Flat indices into (group, neighbour) of the rows."""
    reads: Int[Tensor, "group neighbour"]
    """Rows that a group reads for its S_i; with `weights`, flat indices into (patch, context) of their sums."""
    rows: Int[Tensor, "patch kept"] | None = None
    """Rows of each patch, from which its contexts are summed; unused entries repeat the first."""
    weights: Float[Tensor, "patch context kept"] | None = None
    """Weights of each patch's rows in each of its contexts, in the order of the neighbourhood."""

    def contexts(self, values: Float[Tensor, "*lead row width"]) -> Float[Tensor, "*lead place width"]:
        """The values to which `reads` points: residual streams, keys or values of the rows, or sums of them."""
        if self.rows is None or self.weights is None:
            return values
        kept = take_rows(values, self.rows.flatten()).unflatten(-2, tuple(self.rows.shape))
        return (self.weights.to(values.dtype) @ kept).flatten(-3, -2)


def tail_rows(table: Int[Tensor, "patch neighbour"], offsets: Sequence[tuple[int, int]], tail: str) -> TailRows:
    """Rows of a tail.

    Args:
        table: Neighbourhood of every patch, from `neighbourhood_table`; for the exact tail, of any patches.
        offsets: The neighbourhood's offsets (row, column), in any order; symmetric for the interpolated tail, see
            `Neighbourhood.can_be_interpolated`.
        tail: "exact", "shared" or "interpolated".
    """
    inside = table >= 0
    if tail == "exact":
        run = inside.flatten().nonzero()[:, 0]
        return TailRows(run, _numbers(run, inside))
    n_patches, n_neighbours = table.shape
    if tail == "shared":
        return TailRows(torch.arange(n_patches, device="cpu") * n_neighbours, table.clamp(min=0))

    ordered = tuple(sorted(offsets, key=lambda offset: offset != (0, 0)))  # in the order of the table
    opposite = torch.tensor([ordered.index((-a, -b)) for a, b in ordered], dtype=torch.long, device="cpu")
    # Context c of patch j is the group of patch table[j, c], in which j is the neighbour at the opposite offset; and
    # where a group i reads its neighbour table[i, c], that one's context is the opposite one.
    places = table.clamp(min=0) * n_neighbours + opposite
    plans = [_weights(ordered, tuple(row)) for row in inside.tolist()]
    kept = torch.stack([used for used, _ in plans])
    run = places[kept].sort().values
    numbers = _numbers(run, inside)
    width = int(kept.sum(dim=1).max())
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    there = kept.gather(1, order)
    rows = numbers.flatten()[places.gather(1, torch.where(there, order, 0))]
    weights = torch.stack([w for _, w in plans]).gather(2, order[:, None].expand(-1, n_neighbours, -1))
    return TailRows(run, places, rows, weights)


def _numbers(run: Int[Tensor, " row"], inside: Bool[Tensor, "patch neighbour"]) -> Int[Tensor, "patch neighbour"]:
    """Row number of each entry; 0 where there is none."""
    numbers = torch.zeros_like(inside, dtype=torch.long).flatten()
    numbers[run] = torch.arange(len(run), device="cpu")
    return numbers.view(inside.shape)


@lru_cache(maxsize=256)
def _weights(
    offsets: tuple[tuple[int, int], ...], there: tuple[bool, ...]
) -> tuple[Bool[Tensor, " context"], Float[Tensor, "context context"]]:
    """Which contexts of a token are run, and their weights in each of the contexts that the token has."""
    points = torch.tensor(offsets, dtype=torch.float64, device="cpu")
    having = torch.tensor(there, dtype=torch.bool, device="cpu")
    outwards = torch.stack([_DIRECTIONS.cos(), _DIRECTIONS.sin()], dim=1) @ points.T
    kept = torch.zeros(len(points), dtype=torch.bool, device="cpu")
    kept[outwards.masked_fill(~having, -torch.inf).argmax(dim=1)] = True
    kept[0] = True  # the token's own group
    affine = torch.cat([torch.ones_like(points[:, :1]), points], dim=1)
    distance = (points**2).sum(dim=1)
    inverse = torch.linalg.pinv(affine[kept])
    fitted = affine @ inverse  # the minimum-norm weights that fit
    # The part of the squared distance over the rows that is not affine; zero for the corners of a rectangle.
    bend = distance[kept] - affine[kept] @ (inverse @ distance[kept])
    if bend.norm() > 1e-6:
        fitted = fitted + torch.outer(distance - fitted @ distance[kept], bend) / (bend @ bend)
    weights = torch.zeros(len(points), len(points), dtype=torch.float64, device="cpu")
    weights[:, kept] = fitted
    weights[kept] = torch.eye(len(points), dtype=torch.float64, device="cpu")[kept]
    weights[~having] = 0
    return kept, weights
