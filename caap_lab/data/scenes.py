"""Generated demo scenes: a handwritten digit on a textured ground, with its exact mask.

Everything a scene needs is one row of uniform random numbers, and the rows are turned into pixels by plain
element-wise arithmetic (no matrix product, no sine, no library resize). So a seed gives the same pixels on
every platform, and the first scenes of a long list equal those of a short one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

Split = Literal["train", "test"]

IMAGE_SIZE = 64
CLASS_NAMES = tuple("0123456789")
KINDS = ("single",)

_DIGIT_CELLS = 8  # scikit-learn's digits are 8 x 8
_TEST_EVERY = 5  # every fifth digit is a test digit
_EASY_SIZE, _HARD_SIZE = (56.0, 64.0), (20.0, 36.0)  # side of the digit's box, pixels, at difficulty 0 and 1
_DARK_INK_FROM, _DARK_INK_FULL = 0.05, 0.3  # difficulties between which dark ink grows from none to half
_FRAGMENT_CHANCE = (1.0, 1.0, 0.5)  # at difficulty 1: two or three fragments
_FRAGMENT_CELLS = 4
_FRAGMENT_SIZE = (9.0, 14.0)
_PLACE_TRIES = 6
_TEXTURES = ((4, 0.13), (8, 0.08), (20, 0.04))  # cells across the image, brightness +- at difficulty 1
_CHROMA_CELLS, _CHROMA_RANGE = 4, 0.05
_DRAWS = 1024  # random numbers a scene; fixed, so that scene i does not depend on how many are asked for
_CHUNK = 128  # scenes drawn at once: bounds the memory


@dataclass(frozen=True, eq=False)
class Scene:
    """One labelled image with the exact pixels of its object.

    Attributes:
        image: RGB image, 64 x 64 pixels.
        label: Class of the object, 0 to 9: the digit itself.
        masks: Class -> bool array [H, W], true on that object's ink. A single scene has one entry, ``label``.
    """

    image: Image.Image
    label: int
    masks: dict[int, np.ndarray]


class SceneBatch(NamedTuple):
    """Scenes as arrays, as the training loop wants them.

    Attributes:
        pixels: uint8 [B, 3, H, W].
        labels: int64 [B].
        masks: bool [B, H, W], the digit's ink.
        digits: int64 [B], index of the digit in ``sklearn.datasets.load_digits``.
    """

    pixels: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    digits: np.ndarray


def demo_images(kind: str = "single", n: int = 1, seed: int = 0, split: Split = "test") -> list[Scene]:
    """Generate demo scenes; the same arguments give the same pixels on every machine.

    Args:
        kind: ``"single"``: one digit of 20 to 36 pixels, lighter or darker than its textured ground, and two
            or three small pieces of other digits.
        n: How many scenes. The first scenes do not depend on it.
        seed: Any non-negative integer.
        split: Which handwritten digits to use. ``"test"`` digits were never shown to the demo model.

    Returns:
        ``n`` scenes of 64 x 64 pixels.

    Raises:
        ValueError: If kind or split is unknown, or n or seed is negative.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of demo scene {kind!r}; known kinds: {', '.join(KINDS)}")
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    rng = scene_generator(seed, split)
    scenes: list[Scene] = []
    for start in range(0, n, _CHUNK):
        batch = single_scenes(rng, min(_CHUNK, n - start), split)
        for pixels, label, mask in zip(batch.pixels, batch.labels.tolist(), batch.masks, strict=True):
            image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            own_mask = mask.copy()  # a view would keep the whole chunk alive
            scenes.append(Scene(image, label, {label: own_mask}))
    return scenes


def scene_generator(seed: int, split: Split, *stream: int) -> np.random.Generator:
    """Return the random generator of a seed, a split and, for training, a stream number such as the step.

    Raises:
        ValueError: If split is unknown or seed is negative.
    """
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}; known splits: {', '.join(get_args(Split))}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return np.random.Generator(np.random.PCG64([seed, get_args(Split).index(split), *stream]))


def digit_indices(split: Split) -> np.ndarray:
    """Return which of scikit-learn's digits a split may use: int64, sorted; the two splits share none."""
    index = np.arange(len(_digits()[1]))
    is_test = index % _TEST_EVERY == 0
    return index[is_test if split == "test" else ~is_test]


def single_scenes(
    rng: np.random.Generator, n: int, split: Split, difficulty: float | tuple[float, float] = 1.0
) -> SceneBatch:
    """Draw scenes with one digit each.

    Args:
        rng: Source of randomness; advanced by a fixed amount a scene.
        n: Number of scenes.
        split: Which handwritten digits to use.
        difficulty: In [0, 1], or a range to draw each scene's difficulty from. At 0 a white digit fills a
            plain dark image; then dark digits, colours, texture and fragments come in while the digit
            shrinks. Only near 1 does its box cover at most a third of the image.

    Returns:
        The scenes as arrays.
    """
    draw = _Draws(rng.random((n, _DRAWS)))
    low, high = difficulty if isinstance(difficulty, tuple) else (difficulty, difficulty)
    hard = draw.between(low, high)
    images, labels = _digits()
    allowed = digit_indices(split)

    digit = allowed[draw.below(len(allowed))]
    box = _digit_box(draw, hard)
    dark = draw.between(0.08, _mix(hard, 0.10, 0.35))
    light = dark + draw.between(_mix(hard, 0.80, 0.40), _mix(hard, 0.90, 0.55))
    ink_is_light = draw.one() < _light_ink_chance(hard)
    ink = _tint(np.where(ink_is_light, light, dark), draw, 0.12 * hard)
    ground = _tint(np.where(ink_is_light, dark, light), draw, 0.08 * hard)

    canvas = ground.astype(np.float32)[:, :, None, None] + _texture(draw, hard)
    for chance in _FRAGMENT_CHANCE:
        shown = draw.one() < chance * hard
        other = allowed[draw.below(len(allowed))]
        crop = (draw.between(0.0, 4.0), draw.between(1.0, 3.0))  # not the outer columns: often empty
        cover = _ink_cover(images[other], _fragment_box(draw, box), crop, _FRAGMENT_CELLS)
        strength = draw.between(0.5, 1.0)[:, None]
        colour = _tint(np.where(draw.one() < 0.7, ink.mean(1), draw.between(0.1, 0.9)), draw, 0.12 * hard)
        _paint(canvas, cover * shown[:, None, None], ground + strength * (colour - ground))
    cover = _ink_cover(images[digit], box, (np.zeros(n), np.zeros(n)), _DIGIT_CELLS)
    _paint(canvas, cover, ink)

    pixels = np.rint(np.clip(canvas, 0.0, 1.0) * np.float32(255)).astype(np.uint8)
    return SceneBatch(pixels, labels[digit], cover >= 0.5, digit)


class _Box(NamedTuple):
    """Boxes in pixels, each field float64 [B]."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


class _Draws:
    """Hands out the columns of a [B, _DRAWS] array of uniform numbers, each once."""

    def __init__(self, uniform: np.ndarray) -> None:
        self._uniform = uniform
        self._next = 0

    def many(self, count: int) -> np.ndarray:
        start, self._next = self._next, self._next + count
        if self._next > self._uniform.shape[1]:
            raise RuntimeError("a scene needs more random numbers than _DRAWS")
        return self._uniform[:, start : self._next]

    def one(self) -> np.ndarray:
        return self.many(1)[:, 0]

    def between(self, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
        return low + self.one() * (high - low)

    def below(self, count: int) -> np.ndarray:
        return (self.one() * count).astype(np.int64)


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [1797, 8, 8] in [0, 1] and labels int64 [1797]; they ship with scikit-learn."""
    from sklearn.datasets import load_digits  # slow to import, and only needed once a scene is drawn

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)


def _mix(hard: np.ndarray, easy_value: float, hard_value: float) -> np.ndarray:
    return easy_value + hard * (hard_value - easy_value)


def _light_ink_chance(hard: np.ndarray) -> np.ndarray:
    """At first all ink is light: a small ViT learns nothing for long when both kinds come at once."""
    return 1.0 - 0.5 * np.clip((hard - _DARK_INK_FROM) / (_DARK_INK_FULL - _DARK_INK_FROM), 0.0, 1.0)


def _digit_box(draw: _Draws, hard: np.ndarray) -> _Box:
    side = draw.between(_mix(hard, _EASY_SIZE[0], _HARD_SIZE[0]), _mix(hard, _EASY_SIZE[1], _HARD_SIZE[1]))
    width = side * draw.between(0.85, 1.0)
    return _Box(draw.between(0.0, IMAGE_SIZE - side), draw.between(0.0, IMAGE_SIZE - width), side, width)


def _fragment_box(draw: _Draws, digit: _Box) -> _Box:
    """A box which touches the digit's as little as a few tries allow: a glued-on stroke changes a digit."""
    side = draw.between(*_FRAGMENT_SIZE)
    best_top = best_left = np.zeros_like(side)
    least = np.full_like(side, np.inf)
    for _ in range(_PLACE_TRIES):
        top, left = draw.between(0.0, IMAGE_SIZE - side), draw.between(0.0, IMAGE_SIZE - side)
        rows = np.minimum(top + side, digit.top + digit.height) - np.maximum(top, digit.top)
        columns = np.minimum(left + side, digit.left + digit.width) - np.maximum(left, digit.left)
        area = np.maximum(rows, 0.0) * np.maximum(columns, 0.0)
        better = area < least
        best_top, best_left = np.where(better, top, best_top), np.where(better, left, best_left)
        least = np.minimum(least, area)
    return _Box(best_top, best_left, side, side)


def _tint(brightness: np.ndarray, draw: _Draws, amount: np.ndarray) -> np.ndarray:
    """Colours float64 [B, 3]: the channels move, their mean stays at the brightness, so contrast stays."""
    shift = (2.0 * draw.many(3) - 1.0) * amount[:, None]
    mean = (shift[:, 0] + shift[:, 1] + shift[:, 2]) / 3.0
    return brightness[:, None] + shift - mean[:, None]


def _texture(draw: _Draws, hard: np.ndarray) -> np.ndarray:
    """Smooth noise float32 [B, 3, H, W] around 0, its range proportional to the difficulty."""
    n = len(hard)
    grey = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for cells, amount in _TEXTURES:
        grey += _smooth(draw.many(cells * cells).reshape(n, cells, cells), hard * amount)
    chroma = draw.many(3 * _CHROMA_CELLS**2).reshape(3 * n, _CHROMA_CELLS, _CHROMA_CELLS)
    colour = _smooth(chroma, np.repeat(hard, 3) * _CHROMA_RANGE)
    return grey[:, None] + colour.reshape(n, 3, IMAGE_SIZE, IMAGE_SIZE)


def _smooth(uniform: np.ndarray, half_range: np.ndarray) -> np.ndarray:
    """Stretch coarse uniform cells [B, k, k] over the image: bilinear, float32 [B, H, W], +- half_range."""
    cells = uniform.shape[-1]
    values = ((2.0 * uniform - 1.0) * half_range[:, None, None]).astype(np.float32)
    place = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * (cells - 1)
    low = np.minimum(place.astype(np.int64), cells - 2)
    share = (place - low).astype(np.float32)
    rows = values[:, low] + share[:, None] * (values[:, low + 1] - values[:, low])
    return rows[:, :, low] + share * (rows[:, :, low + 1] - rows[:, :, low])


def _ink_cover(digits: np.ndarray, box: _Box, crop: tuple[np.ndarray, np.ndarray], cells: int) -> np.ndarray:
    """How much of each pixel a digit's ink covers.

    Args:
        digits: Ink of the small digits, [B, 8, 8] in [0, 1].
        box: Where in the image the crop goes.
        crop: First row and first column of the crop, in cells, each [B].
        cells: Side of the crop in cells.

    Returns:
        float32 [B, H, W] in [0, 1]; zero outside the box.
    """
    down = _cubic_weights(box.top, box.height, crop[0], cells)
    across = _cubic_weights(box.left, box.width, crop[1], cells)
    rows = np.zeros((len(digits), IMAGE_SIZE, _DIGIT_CELLS), np.float32)
    value = np.zeros((len(digits), IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for k in range(_DIGIT_CELLS):  # a loop and not einsum: the order of the sums is then the same everywhere
        rows += down[:, :, k, None] * digits[:, k, None, :]
    for k in range(_DIGIT_CELLS):
        value += rows[:, :, k, None] * across[:, None, :, k]
    return np.clip((value - np.float32(0.3)) / np.float32(0.4), 0.0, 1.0)  # sharper than the bicubic slope


def _cubic_weights(start: np.ndarray, length: np.ndarray, first_cell: np.ndarray, cells: int) -> np.ndarray:
    """Bicubic weights float32 [B, pixel, cell of the digit] along one axis; zero outside the box."""
    pixel = np.arange(IMAGE_SIZE) + 0.5
    inside = (pixel - start[:, None]) / length[:, None]
    place = inside * cells + first_cell[:, None] - 0.5
    distance = np.abs(place[:, :, None] - np.arange(_DIGIT_CELLS))
    near = (1.5 * distance - 2.5) * distance * distance + 1.0  # Keys' cubic, a = -0.5
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
    shown = (inside >= 0.0) & (inside <= 1.0)
    return (weights * shown[:, :, None]).astype(np.float32)


def _paint(canvas: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Blend one colour [B, 3] into the canvas [B, 3, H, W] in place, by cover [B, H, W]."""
    colour = colour.astype(np.float32)[:, :, None, None]
    for scene, c, weight in zip(canvas, colour, cover, strict=True):  # one at a time: stays in the cache
        scene += weight * (c - scene)
