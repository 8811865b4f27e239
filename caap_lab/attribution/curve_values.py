"""Response curves of insertion and deletion as MDA reads them: made monotone, then convex."""

import numpy as np
from jaxtyping import Float

Curve = Float[np.ndarray, " step"]


def normalised(scores: Curve, zero: float, one: float, falling: bool) -> Curve:
    """(score - zero) / |one - zero|, clipped to [0, 1] and made monotone by a running maximum or minimum."""
    # If both ends score the same the published code divides by 0; here rounding is not amplified to a response.
    least = 1e-6 * max(abs(one), abs(zero), np.finfo(float).tiny)
    share = np.clip((scores - zero) / max(abs(one - zero), least), 0, 1)
    return np.minimum.accumulate(share) if falling else np.maximum.accumulate(share)


def resampled(curve: Curve, count: int) -> Float[np.ndarray, " point"]:
    """The curve at `count` equally spaced points, both ends included, by linear interpolation."""
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(curve)), curve)


def convex_falls(curve: Curve) -> Float[np.ndarray, " fall"]:
    """The falls y_{n-1} - y_n of the falling convex curve y with this curve's ends that is nearest to it in squares.

    Such a curve from a to b in P steps is y_n = b + (a - b) sum_k w_k max(0, 1 - n / k), with k = 1 ... P, w >= 0 and
    sum w = 1, so that its n-th fall is (a - b) sum_{k >= n} w_k / k. Let B's columns be the residuals of the hinges.
    |B w|^2 is least on that simplex where u = s w has the least |B u|^2 + (sum u - 1)^2 over u >= 0: the best s for a w
    gives |B w|^2 / (1 + |B w|^2), which rises with |B w|^2. That is a non-negative least squares problem.
    """
    from scipy.optimize import nnls

    first, last = curve[0], curve[-1]
    ends = np.arange(1, len(curve))
    if first <= last:
        return np.zeros(len(ends))
    hinges = np.clip(1 - np.arange(len(curve))[:, None] / ends, 0, None)
    residuals = hinges - ((curve - last) / (first - last))[:, None]
    system = np.vstack([residuals, np.ones(len(ends))])
    weights, _ = nnls(system, np.append(np.zeros(len(curve)), 1.0), maxiter=100 * len(ends))
    # Summed from the end, falls are exactly equal where the curve is straight and exactly 0 where it is flat.
    return (first - last) / weights.sum() * (weights / ends)[::-1].cumsum()[::-1]
