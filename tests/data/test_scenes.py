"""The generated demo scenes."""

import hashlib

import numpy as np
import pytest

from caap_lab import InputError
from caap_lab.data.drawing import Box, digit_cover, smooth_noise
from caap_lab.data.scenes import (
    CUE_CLASS,
    KINDS,
    Scene,
    demo_images,
    digit_indices,
    draw_scenes,
    scene_generator,
)


def fingerprint(scenes: list[Scene]) -> str:
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(np.asarray(scene.image).tobytes())
        for label, mask in scene.objects:
            digest.update(bytes([label]))
            digest.update(np.packbits(mask).tobytes())
        if scene.cue is not None:
            digest.update(np.packbits(scene.cue).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("single", "c97a8e08c23ceeffc8d0d81ed7273a94e6abd3b7db173087151ea59015d32e69"),
        ("two", "06a7df2a365c999861604503c8adcb59d345155bbb01c6e3b4dc3cdb73f59b5a"),
        ("twice", "7016ca1d965a45e69ab32bf1e1bd154edc4bdf63a36b9cbb4ff9c489cf52e502"),
        ("spurious", "0513a71998564ec61dd453b5fc3ef2bca1e50619af1e5d40c51123ea595b1009"),
        ("bright-ink", "d9290e459853f2f4fdfb321e61ea77bfffb8f777e7e26bfc91a88e5928d21ea5"),
    ],
)
def test_same_seed_gives_the_same_scenes_everywhere(kind, expected):
    # A fixed value, not two calls compared: the figures need these very pixels on every platform and numpy.
    assert fingerprint(demo_images(kind, n=8)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_split_change_the_scenes_and_n_does_not(kind):
    scenes = demo_images(kind, n=140, seed=3)
    assert fingerprint(scenes[:5]) == fingerprint(demo_images(kind, n=5, seed=3))
    assert fingerprint(scenes[-2:]) != fingerprint(demo_images(kind, n=2, seed=3))
    assert fingerprint(demo_images(kind, n=5, seed=3)) != fingerprint(demo_images(kind, n=5, seed=4))
    assert fingerprint(demo_images(kind, n=5, seed=3)) != fingerprint(demo_images(kind, n=5, seed=3, split="train"))
    assert demo_images(kind, n=0) == []


@pytest.mark.parametrize("kind", KINDS)
def test_masks_mark_the_ink_of_small_objects(kind):
    scenes = demo_images(kind, n=200, seed=1)
    classes = {label for scene in scenes for label in scene.labels}
    assert classes == set(range(10)) - ({CUE_CLASS} if kind == "spurious" else set())
    corners = np.zeros((8, 8))
    for scene in scenes:
        assert scene.image.size == (64, 64) and scene.image.mode == "RGB" and scene.kind == kind
        assert len(scene.objects) == (2 if kind in ("two", "twice") else 1)
        for label, mask in scene.objects:
            assert mask.shape == (64, 64) and mask.dtype == bool
            assert (scene.masks[label] & mask == mask).all() and not (scene.background & mask).any()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert mask.mean() > 0.01 and np.ptp(rows) < 36 and np.ptp(columns) < 36
            corners[(rows[0] + rows[-1]) // 16, (columns[0] + columns[-1]) // 16] += 1
        covered = ~scene.background if scene.cue is None else ~scene.background & ~scene.cue
        assert (np.logical_or.reduce(list(scene.masks.values())) == covered).all()
        assert covered.mean() <= 1 / 3
    centre = corners[1:-1, 1:-1]
    # Objects stand anywhere; two of them leave no room in the very middle.
    assert (corners[2:6, 2:6] > 0).all() if len(scenes[0].objects) == 1 else np.count_nonzero(centre) >= 12


def test_two_objects_never_touch_and_their_classes_differ():
    for scene in demo_images("two", n=300, seed=4):
        (first, a), (second, b) = scene.objects
        assert first != second and scene.label == first and scene.labels == (first, second)
        assert not (a & b).any()
    pairs = {scene.labels for scene in demo_images("two", n=1500, seed=5)}
    assert len(pairs) == 90  # every class beside every other one, in either order


def test_twice_is_the_same_digit_drawn_twice():
    batch = draw_scenes(scene_generator(0, "test"), 100, "test", "twice")
    assert (batch.digits[:, 0] == batch.digits[:, 1]).all()
    for scene in demo_images("twice", n=100):
        (first, a), (second, b) = scene.objects
        assert first == second and scene.labels == (first,)
        assert not (a & b).any()
        assert abs(a.sum() - b.sum()) < 0.15 * a.sum()  # same size; it falls on the pixels in another way
        assert (commonest_colour(scene, a) == commonest_colour(scene, b)).all()


def test_the_cue_stands_beside_digits_of_other_classes():
    for split in ("train", "test"):
        scenes = demo_images("spurious", n=200, seed=2, split=split)
        assert {scene.label for scene in scenes} == set(range(10)) - {CUE_CLASS}
        for scene in scenes:
            assert 0.005 < scene.cue.mean() < 0.03
            np.testing.assert_allclose(commonest_colour(scene, scene.cue), np.array([0.85, 0.05, 0.75]) * 255, atol=1)
            assert not (scene.cue & scene.masks[scene.label]).any() and not (scene.cue & scene.background).any()
    assert all(scene.cue is None for kind in KINDS if kind != "spurious" for scene in demo_images(kind, n=3))


def commonest_colour(scene: Scene, mask: np.ndarray) -> np.ndarray:
    """The colour of most pixels of a mask: where ink covers a pixel fully, its colour is exact."""
    colours, counts = np.unique(np.asarray(scene.image)[mask], axis=0, return_counts=True)
    return colours[counts.argmax()]


def ink_contrast(scene: Scene) -> float:
    """Brightness of the ink minus that of its surroundings, in [-1, 1]."""
    grey = np.asarray(scene.image, dtype=float).mean(2) / 255
    return np.median(grey[scene.masks[scene.label]]) - np.median(grey[scene.background])


@pytest.mark.parametrize("kind", ["single", "two", "twice", "spurious"])
def test_ink_stands_out_from_its_ground_both_ways(kind):
    differences = np.array([ink_contrast(scene) for scene in demo_images(kind, n=200, seed=2)])
    assert np.abs(differences).min() > 0.2
    assert 0.35 < np.mean(differences > 0) < 0.65


def test_bright_ink_is_always_lighter_than_its_ground():
    assert min(ink_contrast(scene) for scene in demo_images("bright-ink", n=200, seed=2)) > 0.2


def test_train_and_test_digits_are_disjoint():
    train, test = set(digit_indices("train")), set(digit_indices("test"))
    assert not train & test
    assert len(train) + len(test) == 1797
    for split, allowed in (("train", train), ("test", test)):
        for kind in KINDS:
            batch = draw_scenes(scene_generator(5, split), 300, split, kind)
            assert set(batch.digits.ravel()) <= allowed


def test_difficulty_shrinks_the_object_and_roughens_the_ground():
    easy = draw_scenes(scene_generator(0, "train"), 60, "train", difficulty=0.0)
    hard = draw_scenes(scene_generator(0, "train"), 60, "train", difficulty=1.0)
    assert easy.masks.mean() > 2 * hard.masks.mean()
    corner = np.s_[:, :, :8, :8]
    assert np.median(easy.pixels[corner].std((2, 3))) < 1 < np.median(hard.pixels[corner].std((2, 3)))


def test_every_scene_has_distractor_fragments():
    """With the digit and the texture taken away, something remains: at least two pieces of other digits."""
    batch = draw_scenes(scene_generator(0, "test"), 100, "test")
    rough = np.abs(np.diff(batch.pixels.astype(float).mean(1), axis=2, prepend=0))
    away = ~np.stack([np.pad(m[0], 3)[3:-3, 3:-3] | np.roll(m[0], 2, 1) | np.roll(m[0], -2, 1) for m in batch.masks])
    away[:, :, :2] = False
    edges = (rough > 20) & away
    assert np.mean(edges.sum((1, 2)) > 5) > 0.95


def test_enlargement_is_bicubic_and_exact():
    rng = np.random.default_rng(0)
    digit = rng.integers(0, 17, (1, 8, 8)).astype(float)
    box = Box(*(np.array([value]) for value in (5.3, 9.1, 30.7, 27.9)))
    whole = (np.zeros(1), np.zeros(1))
    cover = digit_cover(digit, box, whole, 8)[0]

    def keys(d: float) -> float:  # Keys' cubic convolution, a = -0.5
        d = abs(d)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    for row, column in ((10, 12), (20, 30), (33, 20), (2, 2)):
        y, x = (row + 0.5 - 5.3) / 30.7 * 8 - 0.5, (column + 0.5 - 9.1) / 27.9 * 8 - 0.5
        ink = sum(keys(y - i) * keys(x - j) * digit[0, i, j] / 16 for i in range(8) for j in range(8))
        inside = -0.5 <= y <= 7.5 and -0.5 <= x <= 7.5
        assert cover[row, column] == pytest.approx(np.clip((ink - 0.3) / 0.4, 0, 1) if inside else 0.0, abs=2e-3)
    noise = smooth_noise(rng.random((1, 4, 4)), np.array([0.2]))
    assert noise.shape == (1, 64, 64) and 0.05 < np.abs(noise).max() <= 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "video"}, "the kinds are: single, two, twice, spurious, bright-ink"),
        ({"split": "dev"}, "the splits are: train, test"),
        ({"n": -1}, "n must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        demo_images(**arguments)


def test_a_scene_shows_itself():
    (scene,) = demo_images("two", n=1)
    assert repr(scene) == f"Scene(two: {scene.labels[0]} and {scene.labels[1]}, 64 x 64 pixels)"
    assert "with the cue of 7" in repr(demo_images("spurious")[0])
    assert scene._repr_png_().startswith(b"\x89PNG")
