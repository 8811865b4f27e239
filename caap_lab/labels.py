"""Labels along an axis of an xarray, and names and numbers in captions."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

_LISTED = 3
"""Largest number of target names in a caption."""


def label_array(labels: Sequence[Any]) -> np.ndarray:
    """Labels as a one-dimensional array, from which `tolist` returns them.

    Numbers and strings become arrays of their type; anything else, such as tuples, an array of objects.

    Args:
        labels: One label per position along the axis.
    """
    for kind in (Integral, Real, str):
        if all(isinstance(label, kind) and not isinstance(label, bool | np.bool_) for label in labels):
            return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    for place, label in enumerate(labels):
        array[place] = label
    return array


def named(names: Iterable[str]) -> str:
    """The targets of images in a caption: their distinct names, or their number if there are many."""
    once = list(dict.fromkeys(names))
    return ", ".join(once) if len(once) <= _LISTED else f"each image's own target ({len(once)} different ones)"


def counted(count: int, what: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{count} {what}{'s' * (count != 1)}"
