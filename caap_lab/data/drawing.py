"""Pixel arithmetic of the demo scenes: exact on every platform.

Interpolation is a product of small matrices of integers. All sums stay below 2^53, so float64 holds them exactly, in
whatever order a matrix library adds them. The rest is element-wise: no sine, no library resize.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from caap_lab.models.demo_world import IMAGE_SIZE as IMAGE_SIZE

DIGIT_CELLS = 8  # scikit-learn's digits are 8 x 8
INK_LEVELS = 16  # and have whole numbers from 0 to 16

_WEIGHT_STEPS = 2.0**12  # interpolation weights are rounded to this fraction
_VALUE_STEPS = 2.0**16  # noise is rounded to this fraction
_INK_FROM, _INK_FULL = 0.3, 0.7  # interpolated ink between these is mapped to 0 to 1: sharper than bicubic


class Box(NamedTuple):
    """Boxes in pixels, each field float64 [B]."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray

    def overlap(self, other: "Box") -> np.ndarray:
        """Area shared with another box, in square pixels, float64 [B]."""
        rows = np.minimum(self.top + self.height, other.top + other.height) - np.maximum(self.top, other.top)
        columns = np.minimum(self.left + self.width, other.left + other.width) - np.maximum(self.left, other.left)
        return np.maximum(rows, 0.0) * np.maximum(columns, 0.0)


class Draws:
    """Returns the columns of a [B, n] array of uniform numbers, each once: scene i is row i, for any B."""

    def __init__(self, uniform: np.ndarray) -> None:
        self._uniform = uniform
        self._next = 0

    def many(self, count: int) -> np.ndarray:
        """The next columns, [B, count]."""
        start, self._next = self._next, self._next + count
        if self._next > self._uniform.shape[1]:
            raise RuntimeError("a scene needs more random numbers than it was given")
        return self._uniform[:, start : self._next]

    def one(self) -> np.ndarray:
        """The next column, [B], in [0, 1)."""
        return self.many(1)[:, 0]

    def between(self, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
        """Uniform between two bounds, [B]."""
        return low + self.one() * (high - low)

    def below(self, count: int | np.ndarray) -> np.ndarray:
        """Random integers from 0 to count - 1, int64 [B]."""
        return (self.one() * count).astype(np.int64)


def digit_cover(digits: np.ndarray, box: Box, crop: tuple[np.ndarray, np.ndarray], cells: int) -> np.ndarray:
    """The fraction of each pixel that a digit's ink covers, by bicubic enlargement.

    Args:
        digits: Whole numbers from 0 to 16, float64 [B, 8, 8].
        box: Position of the crop in the image.
        crop: First row and first column of the crop, in cells, each [B].
        cells: Side of the crop, in cells; 8 is the whole digit.

    Returns:
        float32 [B, H, W] in [0, 1]; zero outside the box.
    """
    down = _cubic_weights(box.top, box.height, crop[0], cells)
    across = _cubic_weights(box.left, box.width, crop[1], cells)
    cover = (down @ digits @ across.transpose(0, 2, 1)).astype(np.float32)
    cover *= np.float32(1 / (_WEIGHT_STEPS**2 * INK_LEVELS * (_INK_FULL - _INK_FROM)))
    cover -= np.float32(_INK_FROM / (_INK_FULL - _INK_FROM))
    return np.clip(cover, 0.0, 1.0, out=cover)


def plus_cover(box: Box) -> np.ndarray:
    """The fraction of each pixel covered by a plus sign that fills the box, float32 [B, H, W] in [0, 1]."""
    pixel = np.arange(IMAGE_SIZE) + 0.5
    from_row = np.abs(pixel - (box.top + box.height / 2)[:, None])[:, :, None]
    from_column = np.abs(pixel - (box.left + box.width / 2)[:, None])[:, None, :]
    long, short = (box.height / 2)[:, None, None], (box.height / 6)[:, None, None]
    upright = np.clip(long - from_row + 0.5, 0.0, 1.0) * np.clip(short - from_column + 0.5, 0.0, 1.0)
    level = np.clip(short - from_row + 0.5, 0.0, 1.0) * np.clip(long - from_column + 0.5, 0.0, 1.0)
    return np.maximum(upright, level).astype(np.float32)


def smooth_noise(uniform: np.ndarray, half_range: np.ndarray) -> np.ndarray:
    """Coarse uniform cells [B, k, k], enlarged bilinearly to the image.

    Args:
        uniform: Numbers in [0, 1].
        half_range: The result lies between minus and plus this, [B].

    Returns:
        float32 [B, H, W].
    """
    weights = _linear_weights(uniform.shape[-1])
    values = np.rint((2.0 * uniform - 1.0) * _VALUE_STEPS)
    stretched = weights @ values @ weights.T
    stretched *= (half_range / (_WEIGHT_STEPS**2 * _VALUE_STEPS))[:, None, None]
    return stretched.astype(np.float32)


def paint(canvas: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Blend one colour [B, 3] into the canvas [B, 3, H, W] in place, by cover [B, H, W]."""
    colour = colour.astype(np.float32)[:, :, None, None]
    for scene, c, weight in zip(canvas, colour, cover, strict=True):  # one at a time: stays in the cache
        scene += weight * (c - scene)


@lru_cache(maxsize=8)
def _linear_weights(cells: int) -> np.ndarray:
    """Bilinear weights, whole numbers in float64 [pixel, cell]; each row sums to _WEIGHT_STEPS."""
    place = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * (cells - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(cells)))
    return np.rint(weights * _WEIGHT_STEPS)


def _cubic_weights(start: np.ndarray, length: np.ndarray, first_cell: np.ndarray, cells: int) -> np.ndarray:
    """Bicubic weights along one axis, whole numbers in float64 [B, pixel, cell]; zero outside the box."""
    pixel = np.arange(IMAGE_SIZE) + 0.5
    inside = (pixel - start[:, None]) / length[:, None]
    place = inside * cells + first_cell[:, None] - 0.5
    distance = np.abs(place[:, :, None] - np.arange(DIGIT_CELLS))
    near = (1.5 * distance - 2.5) * distance * distance + 1.0  # Keys' cubic, a = -0.5
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
    shown = (inside >= 0.0) & (inside <= 1.0)
    return np.rint(weights * shown[:, :, None] * _WEIGHT_STEPS)
