"""The world of `experiments.planted`: scenes hold what they are said to hold, and maps are judged by it."""

import numpy as np
import pytest

from experiments.planted import KINDS, class_of, distance, judged, planted_scenes
from experiments.planted_world import CLASSES, SYMBOLS, pixels, scenes, symbols, worth


@pytest.mark.parametrize("kind", list(KINDS))
def test_planted_symbols_are_in_their_places(kind: str) -> None:
    where = planted_scenes(kind, 3, seed=1)
    images = pixels(scenes(where, np.random.default_rng(0)))
    own = list(SYMBOLS[class_of(kind)])
    for image, scene in zip(images, where, strict=True):
        there = np.flatnonzero(scene >= 0)
        assert set(own) <= set(there) and len(there) == len(own) + 2
        cells = scene[there]
        gaps = sorted(distance(a, b) for place, a in enumerate(cells) for b in cells[:place])
        assert gaps[0] == 1 if kind.endswith("side by side") else gaps[0] >= 3
        assert gaps[1] >= 3
        for symbol in there:
            row, col = divmod(int(scene[symbol]), 6)
            seen = image[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4].permute(1, 2, 0).numpy() * 0.5 + 0.5
            assert np.abs(seen - symbols()[symbol]).max() < 0.2


def test_what_symbols_are_worth() -> None:
    none, every = np.zeros((1, 9), dtype=bool), np.ones((1, 9), dtype=bool)
    assert worth(none).tolist() == [[0] * 5] and worth(every).tolist() == [[1] * 5]
    halves = np.zeros((1, 9), dtype=bool)
    halves[0, [1, 3, 5, 7]] = True
    assert np.allclose(worth(halves), [[0, 1 / 2, 2 / 3, 0, 1]]) and CLASSES[3:] == ("and", "or")


def test_maps_are_judged_by_what_is_planted() -> None:
    where = planted_scenes("unequal", 2, seed=0)
    right = np.zeros((2, 36))
    for scores, scene in zip(right, where, strict=True):
        scores[scene[[3, 4]]] = 2, 1
    assert list(judged(right, where, "unequal", 3)) == [{"found": 1, "some": 1, "share": 1, "ratio": 2}] * 2
    one_sided = right * (right > 1)
    (first, _) = judged(one_sided, where, "unequal", 3)
    assert first == {"found": 0, "some": 1, "share": 1, "ratio": np.inf}
    (flat, _) = judged(np.ones((2, 36)), where, "unequal", 3)
    (small, _) = judged(right, where, "unequal", 11)
    assert small["found"] == 0 and small["some"] == 1  # the weaker one is less than a tenth of a single patch
    assert flat == {"found": 0, "some": 0, "share": 0, "ratio": np.inf}
