"""Shapley values from the values of random sets of players, without bias, with standard errors.

With v(S) the value of a set S of N players, D = v(all) - v(none), and for a set and its complement together
y(S) = (v(S) - v(all but S)) / 2, in which all interactions of even order cancel (Covert & Lee 2021, arXiv 2012.01536),

    phi_i = D / N + E[ w_k (1[i in S] - k / N) y(S) ],    w_k = N / (p_k k (N - k)),

where a size k comes with chance p_k and a set with equal chance among those of its size. The expectation is taken of
what a regression leaves over, y - g, and the regression's own Shapley values, which are known, are added to it
(Witter, Liu & Musco 2025, arXiv 2506.11849). Here g is a curve in k, since an image that is half blank often says much
less than half, and for each player a slope that may change with k. Each set's remainder is that of a regression on the
other sets alone, so that the estimate has no bias, whatever the number of sets. All estimates add up to D.

p_k is in proportion to 1 / sqrt(k (N - k)), the best where remainders are equally large for all sizes; then all sets
have equal weight in the regression.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

SLOPES = 3
"""Slopes of a player: times 1, u^2 and u^4, with u = 2 k / N - 1."""
CURVE = 5
"""Odd Legendre polynomials of u in the curve."""
SLOPE_RIDGE, CURVE_RIDGE = 3.0, 0.1
"""They keep a regression on few sets from following noise. Any fixed values leave the estimate without bias."""


def draw_sets(n_players: int, count: int, generator: torch.Generator) -> Bool[Tensor, "set player"]:
    """Random sets of 1 to N - 1 players; those drawn with one generator in several calls are those of one call.

    Args:
        n_players: N, at least 2.
        count: Sets.
        generator: Of the CPU.
    """
    # One row per set, so that more sets begin with the same ones.
    drawn = torch.rand(count, n_players + 1, generator=generator, dtype=torch.float64, device="cpu")
    sizes = torch.searchsorted(_chances(n_players).cumsum(dim=0), drawn[:, 0].contiguous()) + 1
    places = drawn[:, 1:].argsort(dim=1).argsort(dim=1)
    return places < sizes.clamp(max=n_players - 1)[:, None]


def shapley_estimate(
    sets: Bool[Tensor, "set player"], halves: Float[Tensor, " set"], whole: float
) -> tuple[Float[Tensor, " player"], Float[Tensor, " player"]]:
    """Shapley values and their standard errors, in float64.

    Args:
        sets: From `draw_sets`, two at least.
        halves: y of each set: half of what it is worth more than its complement.
        whole: D, what all players are worth more than none.
    """
    count, n = sets.shape
    inside = sets.double()
    size = inside.sum(dim=1)
    centred = inside - (size / n)[:, None]
    u = 2 * size / n - 1
    slopes = [centred * u[:, None] ** (2 * power) for power in range(SLOPES)]
    known = torch.cat([*slopes, _curve(u)], dim=1)
    ridge = torch.full((known.shape[1],), SLOPE_RIDGE, dtype=torch.float64, device="cpu")
    ridge[n * SLOPES :] = CURVE_RIDGE
    inverse = torch.linalg.inv(known.T @ known + ridge.diag())
    beyond = halves.double() - u * whole / 2
    fitted = inverse @ (known.T @ beyond)
    # What is left of a set where the regression does not know it, from one regression on all sets.
    left = (beyond - known @ fitted) / (1 - ((known @ inverse) * known).sum(dim=1))
    without_one = fitted - inverse @ (known.T @ left) / count  # mean of the regressions, each without one set
    sizes = torch.arange(1, n, dtype=torch.float64, device="cpu")
    chances = _chances(n)
    weight = n / (chances[size.long() - 1] * size * (n - size))
    parts = (weight * left)[:, None] * centred
    values = whole / n + parts.mean(dim=0)
    for power in range(SLOPES):
        slope = without_one[power * n : (power + 1) * n]
        values = values + ((2 * sizes / n - 1) ** (2 * power)).mean() * (slope - slope.mean())
    return values, parts.std(dim=0) / count**0.5


def _chances(n_players: int) -> Float[Tensor, " size"]:
    """Chance p_k of each size k from 1 to N - 1."""
    sizes = torch.arange(1, n_players, dtype=torch.float64, device="cpu")
    chances = (sizes * (n_players - sizes)) ** -0.5
    return chances / chances.sum()


def _curve(u: Float[Tensor, " set"]) -> Float[Tensor, "set term"]:
    terms = np.polynomial.legendre.legvander(u.numpy(), 2 * CURVE - 1)[:, 1::2]
    return torch.from_numpy(np.ascontiguousarray(terms))
