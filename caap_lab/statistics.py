"""Means over images, their standard errors, and paired differences.

Standard errors are the standard deviation with ddof 0, as in the paper, over the root of the number of images.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


def standard_error(values: Float[np.ndarray, "image *rest"]) -> Float[np.ndarray, "*rest"] | np.floating:
    """Standard error of the mean over the first axis; 0 for one image, NaN for none."""
    if not len(values):
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0) / np.sqrt(len(values))


class MeanAndError(NamedTuple):
    """What `over_present` returns."""

    mean: Float[np.ndarray, "*rest"]
    standard_error: Float[np.ndarray, "*rest"]


def over_present(values: Float[np.ndarray, "image *rest"]) -> MeanAndError:
    """Mean and standard error over the images that have a value at a place; NaN marks the others.

    Args:
        values: One row per image; which images have a value may differ from place to place.

    Returns:
        Both are NaN where no image has a value.
    """
    count = np.isfinite(values).sum(axis=0)
    some = np.where(count > 0, count, np.nan)
    mean = np.nansum(values, axis=0) / some
    variance = np.nansum((values - mean) ** 2, axis=0) / some
    return MeanAndError(mean, np.sqrt(variance / some))


def paired_statistics(
    values: Float[np.ndarray, " image"], reference: Float[np.ndarray, " image"] | None = None, factor: float = 100
) -> dict[str, float]:
    """Statistics of a metric, in percent by default, and of its paired differences to a reference.

    Args:
        values: One value per image; images without one are NaN, and left out.
        reference: Values of the same images by what is compared with, if anything is.
        factor: What all values are multiplied by.

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
