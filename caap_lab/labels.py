"""Labels of any kind along an axis of an xarray, and names of targets in a caption."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

_LISTED = 3
"""Names of targets that a caption has room for."""


def label_array(labels: Sequence[Any]) -> np.ndarray:
    """Labels as an array of one axis, from which `tolist` gives them back.

    Numbers and texts become arrays of their kind; anything else, tuples say, stays the object that it is.

    Args:
        labels: One label per place along the axis.
    """
    for kind in (Integral, Real, str):
        if all(isinstance(label, kind) and not isinstance(label, bool | np.bool_) for label in labels):
            return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    for place, label in enumerate(labels):
        array[place] = label
    return array


def named(names: Iterable[str]) -> str:
    """What images' targets are called in a caption: their names, each once, or how many if they are many."""
    once = list(dict.fromkeys(names))
    return ", ".join(once) if len(once) <= _LISTED else f"each image's own target ({len(once)} different ones)"
