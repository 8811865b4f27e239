"""Means over images, their standard errors, intervals and tests, and paired differences.

Standard errors are the standard deviation with ddof 0, as in the paper, divided by the root of the number of images.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from caap_lab.errors import InputError


def standard_error(values: Float[np.ndarray, "image *rest"]) -> Float[np.ndarray, "*rest"] | np.floating:
    """Standard error of the mean over the first axis; NaN for fewer than two images, which do not show it."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0) / np.sqrt(len(values))


class MeanAndError(NamedTuple):
    """The result of `over_present`."""

    mean: Float[np.ndarray, "*rest"]
    standard_error: Float[np.ndarray, "*rest"]


def over_present(values: Float[np.ndarray, "image *rest"]) -> MeanAndError:
    """Mean and standard error over the images that have a value at a position; NaN marks the others.

    Args:
        values: One row per image; which images have a value may differ between positions.

    Returns:
        Both are NaN where no image has a value; the standard error also where only one has.
    """
    count = np.isfinite(values).sum(axis=0)
    some = np.where(count > 0, count, np.nan)
    mean = np.nansum(values, axis=0) / some
    variance = np.nansum((values - mean) ** 2, axis=0) / some
    return MeanAndError(mean, np.where(count > 1, np.sqrt(variance / some), np.nan))


def paired_statistics(
    values: Float[np.ndarray, " image"], reference: Float[np.ndarray, " image"] | None = None, factor: float = 100
) -> dict[str, float]:
    """Statistics of a metric, in percent by default, and of its paired differences to a reference.

    Args:
        values: One value per image; images without one are NaN, and left out.
        reference: Values of the same images for the reference, if there is one.
        factor: Factor of all values.

    Returns:
        n, mean and se; with a reference difference, difference_se and difference_n over the images that both have.
    """
    result: dict[str, float] = {}
    for prefix, numbers in (("", values), ("difference_", None if reference is None else values - reference)):
        if numbers is not None:
            kept = factor * numbers[~np.isnan(numbers)]
            result[f"{prefix}n"] = len(kept)
            result[prefix.rstrip("_") or "mean"] = float(kept.mean()) if len(kept) else float("nan")
            result[f"{prefix}se"] = float(standard_error(kept))
    return result


_MOST_EXACT = 12
"""Largest number of images for which all sign flips are tried."""


def bootstrap_interval(
    values: Float[np.ndarray, "image *rest"], level: float = 0.95, *, samples: int = 2000, seed: int = 0
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Lower and upper end of the percentile bootstrap interval of the mean over the first axis.

    Args:
        values: One row per image.
        level: Confidence level, between 0 and 1.
        samples: Number of bootstrap samples of the images.
        seed: Seed of the samples.

    Returns:
        NaN for one image, which has no other sample than itself.

    Raises:
        InputError: level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    count = len(values)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples) / count
    means = drawn @ values.reshape(count, -1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if count < 2:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def sign_flip_p(
    paired: Float[np.ndarray, "image *rest"], *, samples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, "*rest"]:
    """Two-sided p-values of paired differences by a permutation test: how often flipped signs give as large a mean.

    Args:
        paired: Differences, one row per image.
        samples: Number of random flips for more than 12 images; up to 12 all flips are tried, which is exact.
        seed: Seed of the flips.

    Returns:
        NaN where a difference is NaN.
    """
    count = len(paired)
    if count <= _MOST_EXACT:
        signs = 1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, count))
    flat = paired.reshape(count, -1)
    flipped, seen = np.abs(signs @ flat), np.abs(flat.sum(axis=0))
    as_large = (flipped >= seen * (1 - 1e-12)).sum(axis=0)
    exact = count <= _MOST_EXACT
    p = as_large / len(signs) if exact else (as_large + 1) / (len(signs) + 1)
    return np.where(np.isnan(seen), np.nan, p).reshape(paired.shape[1:])


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """P-values of several tests, corrected so that an error in any of them is as rare as the level says (Holm 1979).

    The smallest is multiplied by the number of tests, the next one by one less, and so on; none may come out smaller
    than one before it, or above 1.

    Args:
        p: P-values; NaN marks tests that were not made, which do not count.

    Returns:
        In the same order, NaN where p is NaN.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def rank_rows(values: Float[np.ndarray, "image method"], *, lowest_first: bool) -> Float[np.ndarray, "image method"]:
    """Ranks within each row, 1 for the best; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    return rankdata(values if lowest_first else -values, axis=1)


def critical_difference(methods: int, images: int, level: float = 0.05) -> float:
    """The difference of two mean ranks from which on the methods are told apart: Nemenyi's test, as in Demsar 2006.

    Over all pairs of methods together, a difference as large comes about by chance in `level` of the cases at most.

    Args:
        methods: How many are ranked on each image.
        images: How many images were ranked.
        level: Share of cases.

    Returns:
        In ranks; NaN where there are fewer than two methods, or no image.
    """
    from scipy.stats import studentized_range

    if methods < 2 or images < 1:
        return float("nan")
    q = studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * images)))
