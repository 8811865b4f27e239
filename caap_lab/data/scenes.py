"""Generated demo scenes: handwritten digits on a textured background, with the exact pixels of every object.

A scene is drawn from one row of uniform random numbers, which `caap_lab.data.drawing` turns into pixels. So a seed
gives the same pixels on every platform, and the first scenes of a long list are those of a short one.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from caap_lab.data.drawing import (
    DIGIT_CELLS,
    IMAGE_SIZE,
    Box,
    Draws,
    digit_cover,
    paint,
    plus_cover,
    smooth_noise,
)
from caap_lab.errors import InputError
from caap_lab.models.demo_world import CLASS_NAMES as CLASS_NAMES

Split = Literal["train", "test"]
Kind = Literal["single", "two", "twice", "spurious", "bright-ink"]

KINDS = get_args(Kind)
CUE_CLASS = 7
"""The class that "demo-spurious" was trained to predict if there is a spurious cue, a magenta plus sign."""

_TEST_EVERY = 5  # every fifth digit is a test digit
_EASY_SIDE, _SIDE = (50.0, 60.0), (24.0, 36.0)  # side of a lone digit's box, pixels, at difficulty 0 and 1
_PAIR_SIDE = (24.0, 30.0)  # two fit side by side without touching
_DARK_INK_FROM, _DARK_INK_FULL = 0.05, 0.3  # difficulties between which dark ink grows from none to half
_FRAGMENT_CHANCE = (1.0, 1.0, 0.5)  # at difficulty 1: two or three fragments
_FRAGMENT_CELLS = 4
_FRAGMENT_SIDE = (9.0, 14.0)
_CUE_SIDE = (10.0, 13.0)
_CUE_COLOUR = (0.85, 0.05, 0.75)
_PLACE_TRIES = 6
_TEXTURES = ((4, 0.13), (8, 0.08), (20, 0.04))  # cells across the image, brightness +- at difficulty 1
_CHROMA_CELLS, _CHROMA_RANGE = 4, 0.05
_DRAWS = 1024  # random numbers per scene; fixed, so that scene i does not depend on the number of scenes
_CHUNK = 32  # scenes drawn at once: limits the memory


class SceneObject(NamedTuple):
    """One digit of a scene.

    Attributes:
        label: Its class, 0 to 9: the digit itself.
        mask: bool [H, W], true on its ink.
    """

    label: int
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """A generated image with the exact pixels of its objects.

    Attributes:
        kind: How it was made; see `demo_images`.
        image: RGB image, 64 x 64 pixels.
        objects: Its digits. The class of the first is the scene's `label`.
        cue: bool [H, W], true on the spurious cue; None if there is none.
    """

    kind: Kind
    image: Image.Image
    objects: tuple[SceneObject, ...]
    cue: np.ndarray | None = None

    @property
    def label(self) -> int:
        """Class of the first object."""
        return self.objects[0].label

    @property
    def labels(self) -> tuple[int, ...]:
        """The distinct classes in the scene."""
        return tuple(self.masks)

    @cached_property
    def masks(self) -> dict[int, np.ndarray]:
        """Class -> bool [H, W], true on the ink of all objects of that class."""
        masks: dict[int, np.ndarray] = {}
        for label, mask in self.objects:
            masks[label] = masks[label] | mask if label in masks else mask
        return masks

    @cached_property
    def background(self) -> np.ndarray:
        """Mask bool [H, W] that is True where there is no object and no cue; distractor fragments are background."""
        covered = np.logical_or.reduce([mask for _, mask in self.objects])
        return ~covered if self.cue is None else ~(covered | self.cue)

    def __repr__(self) -> str:
        digits = " and ".join(CLASS_NAMES[item.label] for item in self.objects)
        cue = "" if self.cue is None else f", with the cue of {CLASS_NAMES[CUE_CLASS]}"
        return f"Scene({self.kind}: {digits}{cue}, {self.image.width} x {self.image.height} pixels)"

    def _repr_png_(self) -> bytes | None:
        return self.image._repr_png_()


class SceneBatch(NamedTuple):
    """Scenes as arrays for the training loop; K is the number of objects per scene.

    Attributes:
        pixels: uint8 [B, 3, H, W].
        labels: int64 [B, K].
        masks: bool [B, K, H, W], each object's ink.
        digits: int64 [B, K], index of the digit in `sklearn.datasets.load_digits`.
        cue: bool [B, H, W], the cue's pixels: all false in kinds without one.
    """

    pixels: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    digits: np.ndarray
    cue: np.ndarray


def demo_images(kind: Kind = "single", n: int = 1, seed: int = 0, split: Split = "test") -> list[Scene]:
    """A list of generated demo scenes; the same arguments give the same pixels on every machine.

    ```python
    scene = cl.demo_images("two", 3, seed=1)[0]
    scene.image, scene.labels, scene.masks[scene.label]
    ```

    A scene has one digit of 24 to 36 pixels at any position, with all ink lighter or all ink darker than a textured
    background, and two or three small fragments of other digits as distractors.

    Args:
        kind: Variant of the scene.

            - `"single"`: as above.
            - `"two"`: two digits of different classes, 24 to 30 pixels each.
            - `"twice"`: one digit drawn twice with the same size and colour, so that either would be enough.
            - `"spurious"`: a magenta plus sign next to a digit that is not a 7. "demo-spurious" was trained on such
              scenes with the label 7; the scene's own label is the digit's.
            - `"bright-ink"`: ink always lighter than the background, so that a white blank looks like ink.
        n: Number of scenes. The first scenes do not depend on it.
        seed: Any non-negative integer.
        split: Which handwritten digits to use. The bundled models were not trained on `"test"` digits.

    Returns:
        `n` scenes of 64 x 64 pixels.

    Raises:
        InputError: kind or split is unknown, or n or seed is negative.
    """
    _check_kind(kind)
    if n < 0:
        raise InputError(f"n must not be negative, got {n}.")
    rng = scene_generator(seed, split)
    scenes: list[Scene] = []
    for start in range(0, n, _CHUNK):
        scenes += _scenes(draw_scenes(rng, min(_CHUNK, n - start), split, kind), kind)
    return scenes


def demo_scene(kind: Kind, index: int, seed: int) -> Scene:
    """The test scene of `demo_images` at an index, without generating those before it."""
    rng = scene_generator(seed, "test")
    rng.bit_generator.advance(index * _DRAWS)  # type: ignore[attr-defined]  # PCG64 has it
    return _scenes(draw_scenes(rng, 1, "test", kind), kind)[0]


def scene_labels(kind: Kind, n: int, seed: int) -> list[int]:
    """The labels of the first test scenes of `demo_images`, without drawing them.

    Raises:
        InputError: there is no such kind.
    """
    _check_kind(kind)
    draw = Draws(scene_generator(seed, "test").random((n, _DRAWS)))
    draw.one()  # the difficulty
    return _digits()[1][_choose_digits(draw, kind, "test")[0]].tolist()


def _check_kind(kind: Kind) -> None:
    if kind not in KINDS:
        raise InputError(f"There is no kind of demo scene {kind!r}; the kinds are: {', '.join(KINDS)}.")


def _scenes(batch: SceneBatch, kind: Kind) -> list[Scene]:
    scenes = []
    for pixels, labels, masks, _, cue in zip(*batch, strict=True):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        # Copies: a view would keep the complete chunk in memory.
        objects = tuple(SceneObject(label, mask.copy()) for label, mask in zip(labels.tolist(), masks, strict=True))
        scenes.append(Scene(kind, image, objects, cue.copy() if kind == "spurious" else None))
    return scenes


def scene_generator(seed: int, split: Split, *stream: int) -> np.random.Generator:
    """The random generator of a seed, a split and, for training, a stream number such as the step.

    Raises:
        InputError: split is unknown or seed is negative.
    """
    if split not in get_args(Split):
        raise InputError(f"There is no split {split!r}; the splits are: {', '.join(get_args(Split))}.")
    if seed < 0:
        raise InputError(f"seed must not be negative, got {seed}.")
    return np.random.Generator(np.random.PCG64([seed, get_args(Split).index(split), *stream]))


def digit_indices(split: Split) -> np.ndarray:
    """Indices of scikit-learn's digits in a split: int64, sorted; the two splits share none."""
    index = np.arange(len(_digits()[1]))
    is_test = index % _TEST_EVERY == 0
    return index[is_test if split == "test" else ~is_test]


def draw_scenes(
    rng: np.random.Generator,
    n: int,
    split: Split,
    kind: Kind = "single",
    difficulty: float | tuple[float, float] = 1.0,
) -> SceneBatch:
    """A batch of scenes of one kind.

    Args:
        rng: Source of randomness; advanced by a fixed amount per scene.
        n: Number of scenes.
        split: Which handwritten digits to use.
        kind: As in `demo_images`.
        difficulty: In [0, 1], or a range to draw each scene's difficulty from. At 0 a white digit nearly fills a
            plain dark image; then dark digits, colours, texture and fragments are added while a single digit shrinks.
            Only near 1 its box covers at most a third of the image.

    Returns:
        The scenes as arrays.
    """
    draw = Draws(rng.random((n, _DRAWS)))
    low, high = difficulty if isinstance(difficulty, tuple) else (difficulty, difficulty)
    hard = draw.between(low, high)
    images, all_labels = _digits()

    digits = _choose_digits(draw, kind, split)
    boxes = _place_pair(draw, same_side=kind == "twice") if len(digits) == 2 else [_place_one(draw, hard)]
    dark = draw.between(0.08, _mix(hard, 0.10, 0.35))
    light = dark + draw.between(_mix(hard, 0.80, 0.40), _mix(hard, 0.90, 0.55))
    ink_is_light = draw.one() < (1.0 if kind == "bright-ink" else _light_ink_chance(hard))
    brightness = np.where(ink_is_light, light, dark)
    inks = [_tint(brightness, draw, 0.12 * hard) for _ in digits]
    if kind == "twice":
        inks = [inks[0], inks[0]]
    ground = _tint(np.where(ink_is_light, dark, light), draw, 0.08 * hard)

    canvas = ground.astype(np.float32)[:, :, None, None] + _texture(draw, hard)
    cue = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE), bool)
    cue_box = None
    if kind == "spurious":
        cue_box = _place_apart(draw, draw.between(*_CUE_SIDE), boxes)
    _paint_fragments(canvas, draw, hard, split, boxes if cue_box is None else [*boxes, cue_box], brightness, ground)
    masks = []
    for digit, box, ink in zip(digits, boxes, inks, strict=True):
        cover = digit_cover(images[digit], box, (np.zeros(n), np.zeros(n)), DIGIT_CELLS)
        paint(canvas, cover, ink)
        masks.append(cover >= 0.5)
    if cue_box is not None:
        cover = plus_cover(cue_box)
        paint(canvas, cover, np.broadcast_to(np.array(_CUE_COLOUR), (n, 3)))
        cue = cover >= 0.5
        masks = [mask & ~cue for mask in masks]

    pixels = np.rint(np.clip(canvas, 0.0, 1.0) * np.float32(255)).astype(np.uint8)
    chosen = np.stack(digits, axis=1)
    return SceneBatch(pixels, all_labels[chosen], np.stack(masks, axis=1), chosen, cue)


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images float64 [1797, 8, 8], integers from 0 to 16, and labels int64 [1797], from scikit-learn."""
    from sklearn.datasets import load_digits  # slow to import, and only needed once a scene is drawn

    digits = load_digits()
    return digits.images.astype(np.float64), digits.target.astype(np.int64)


def _choose_digits(draw: Draws, kind: Kind, split: Split) -> list[np.ndarray]:
    """Digit indices int64 [B], one array per object."""
    allowed = digit_indices(split)
    labels = _digits()[1][allowed]
    if kind == "spurious":
        allowed = allowed[labels != CUE_CLASS]
    first = allowed[draw.below(len(allowed))]
    if kind == "twice":
        return [first, first]
    if kind != "two":
        return [first]
    # In an order that starts with the class of the first digit, the digits of the other classes come after it.
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    first_class = _digits()[1][first]
    behind = np.cumsum(counts)[first_class] + draw.below(len(allowed) - counts[first_class])
    return [first, allowed[by_class[behind % len(allowed)]]]


def _mix(hard: np.ndarray, easy_value: float, hard_value: float) -> np.ndarray:
    return easy_value + hard * (hard_value - easy_value)


def _light_ink_chance(hard: np.ndarray) -> np.ndarray:
    """Probability of light ink. At first all ink is light: a small ViT hardly learns if both kinds come at once."""
    return 1.0 - 0.5 * np.clip((hard - _DARK_INK_FROM) / (_DARK_INK_FULL - _DARK_INK_FROM), 0.0, 1.0)


def _place_one(draw: Draws, hard: np.ndarray) -> Box:
    side = draw.between(_mix(hard, _EASY_SIDE[0], _SIDE[0]), _mix(hard, _EASY_SIDE[1], _SIDE[1]))
    width = side * draw.between(0.85, 1.0)
    return Box(draw.between(0.0, IMAGE_SIZE - side), draw.between(0.0, IMAGE_SIZE - width), side, width)


def _place_pair(draw: Draws, same_side: bool) -> list[Box]:
    """Two boxes, each in one half of the image: left and right or top and bottom, in either order."""
    upright, swapped = draw.one() < 0.5, draw.one() < 0.5
    half = IMAGE_SIZE / 2
    boxes: list[Box] = []
    for index in range(2):
        side, squeeze = draw.between(*_PAIR_SIDE), draw.between(0.85, 1.0)
        if same_side and boxes:
            side, width = boxes[0].height, boxes[0].width
        else:
            width = side * squeeze
        offset = np.where(swapped == (index == 0), half, 0.0)
        across, along = draw.one(), draw.one()
        top = np.where(upright, offset + across * (half - side), along * (IMAGE_SIZE - side))
        left = np.where(upright, along * (IMAGE_SIZE - width), offset + across * (half - width))
        boxes.append(Box(top, left, side, width))
    return boxes


def _place_apart(draw: Draws, side: np.ndarray, others: list[Box]) -> Box:
    """A square that overlaps the others as little as possible in a few tries: a touching stroke changes a digit."""
    best_top = best_left = np.zeros_like(side)
    least = np.full_like(side, np.inf)
    for _ in range(_PLACE_TRIES):
        top, left = draw.between(0.0, IMAGE_SIZE - side), draw.between(0.0, IMAGE_SIZE - side)
        tried = Box(top, left, side, side)
        area = np.sum([tried.overlap(other) for other in others], axis=0)
        better = area < least
        best_top, best_left = np.where(better, top, best_top), np.where(better, left, best_left)
        least = np.minimum(least, area)
    return Box(best_top, best_left, side, side)


def _paint_fragments(
    canvas: np.ndarray,
    draw: Draws,
    hard: np.ndarray,
    split: Split,
    others: list[Box],
    brightness: np.ndarray,
    ground: np.ndarray,
) -> None:
    """Paint two or three fragments of digits, mostly as bright as the ink, with varied strength."""
    images, _ = _digits()
    allowed = digit_indices(split)
    for chance in _FRAGMENT_CHANCE:
        shown = draw.one() < chance * hard
        digit = allowed[draw.below(len(allowed))]
        crop = (draw.between(0.0, 4.0), draw.between(1.0, 3.0))  # not the outer columns, which are often empty
        box = _place_apart(draw, draw.between(*_FRAGMENT_SIDE), others)
        cover = digit_cover(images[digit], box, crop, _FRAGMENT_CELLS)
        strength = draw.between(0.5, 1.0)[:, None]
        colour = _tint(np.where(draw.one() < 0.7, brightness, draw.between(0.1, 0.9)), draw, 0.12 * hard)
        paint(canvas, cover * shown[:, None, None], ground + strength * (colour - ground))


def _tint(brightness: np.ndarray, draw: Draws, amount: np.ndarray) -> np.ndarray:
    """Colours float64 [B, 3] whose mean over channels is the brightness, so that the contrast does not change."""
    shift = (2.0 * draw.many(3) - 1.0) * amount[:, None]
    mean = (shift[:, 0] + shift[:, 1] + shift[:, 2]) / 3.0
    return brightness[:, None] + shift - mean[:, None]


def _texture(draw: Draws, hard: np.ndarray) -> np.ndarray:
    """Smooth noise float32 [B, 3, H, W] around 0, with a range proportional to the difficulty."""
    n = len(hard)
    grey = np.zeros((n, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for cells, amount in _TEXTURES:
        grey += smooth_noise(draw.many(cells * cells).reshape(n, cells, cells), hard * amount)
    chroma = draw.many(3 * _CHROMA_CELLS**2).reshape(3 * n, _CHROMA_CELLS, _CHROMA_CELLS)
    colour = smooth_noise(chroma, np.repeat(hard, 3) * _CHROMA_RANGE)
    return grey[:, None] + colour.reshape(n, 3, IMAGE_SIZE, IMAGE_SIZE)
