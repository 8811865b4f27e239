"""Scores of a grid at pixel resolution, such that pixels that should be equal are equal to the last bit."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MODES = ("bilinear", "nearest-exact", "bicubic")


def enlarged(
    scores: Float[Tensor, "row col"], size: tuple[int, int], mode: str = "bilinear"
) -> Float[Tensor, "height width"]:
    """The scores at `size`, in float64 on the CPU; pixel centres are aligned, and edges are repeated.

    Equal to PyTorch's `interpolate` up to rounding, which makes a constant grid vary by 1e-8 and so breaks ties. Here
    the weights are integers with a common denominator, and scores enter as differences:

    - Pixels between equal cells have exactly the cells' score, so that a constant grid stays constant, and plateaus of
      equal scores stay equal everywhere.
    - Bilinear values of float32 scores are exact before the division, unless neighbours differ by a factor of more than
      about 1000: two pixels are equal exactly if their weighted sums are, as on the two flanks of one cell.

    Args:
        scores: One score per cell.
        size: Height and width in pixels.
        mode: One of `MODES`.
    """
    grid = scores.detach().cpu().double()
    if mode == "nearest-exact":
        return F.interpolate(grid[None, None], size, mode=mode)[0, 0]
    height, width = size
    rows, row_total = _along_rows(grid, height, mode)
    columns, column_total = _along_rows(rows.T, width, mode)
    return (columns.T / (row_total * column_total)).contiguous()


def _along_rows(lines: Float[Tensor, "row other"], count: int, mode: str) -> tuple[Float[Tensor, "place other"], float]:
    """Sums over neighbouring rows with integer weights, at `count` places, and the sum of the weights."""
    cells = len(lines)
    # Place i is ((2 i + 1) cells - count) / (2 count) rows below the centre of the first row.
    shared = math.gcd(2 * cells, cells - count, 2 * count)
    parts = 2 * count // shared
    place = ((2 * torch.arange(count, dtype=torch.int64, device="cpu") + 1) * cells - count) // shared
    first, beyond = place.div(parts, rounding_mode="floor"), place.remainder(parts)
    weights = _cubic(beyond, parts) if mode == "bicubic" else [parts - beyond, beyond]
    before = len(weights) // 2 - 1
    taken = [lines[(first - before + tap).clamp(0, cells - 1)] for tap in range(len(weights))]
    middle = (taken[before] + taken[before + 1]) / 2
    terms = [weight.double()[:, None] * (row - middle) for weight, row in zip(weights, taken, strict=True)]
    total = float(weights[0][0] + sum(weight[0] for weight in weights[1:]))
    rest = terms[before] + terms[before + 1]
    if mode == "bicubic":
        rest = rest + (terms[0] + terms[3])  # in pairs, so that mirrored neighbours give the same sum
    return total * middle + rest, total


def _cubic(beyond: Int[Tensor, " place"], parts: int) -> list[Int[Tensor, " place"]]:
    """Weights of Keys' cubic convolution with a = -3/4 at beyond / parts, times 4 parts^3 (IEEE TASSP 29, 1981)."""
    ahead = parts - beyond

    def near(x: Int[Tensor, " place"]) -> Int[Tensor, " place"]:
        return 5 * x**3 - 9 * parts * x**2 + 4 * parts**3

    def far(x: Int[Tensor, " place"]) -> Int[Tensor, " place"]:
        return -3 * (x**3 - 5 * parts * x**2 + 8 * parts**2 * x - 4 * parts**3)

    return [far(parts + beyond), near(beyond), near(ahead), far(parts + ahead)]
