"""Where heads stand in the grid of all heads."""

import numpy as np

from caap_lab.widgets.head_places import HeadPlaces

VALUES = np.array([[0.2, 0.9, np.nan], [0.5, 0.1, 0.7], [0.3, 0.8, np.nan]])
"""Two blocks of three heads, one of which has no value, and a pooling head of two."""
PLACES = HeadPlaces(2, 3, 2)


def test_by_their_numbers() -> None:
    shown = PLACES.arranged()
    assert shown.order == [*(0, 1, 2, 3), *(4, 5, 6, 7), *(8, 9, -1, 11), *(12, 13, 14, 15)]
    assert (shown.names, shown.columns) == (["0", "1", "pool", "mean"], ["0", "1", "2", "mean"])
    assert (shown.across, shown.split) == (4, [3, 3])
    plain = HeadPlaces(2, 3)
    assert (plain.shape, plain.pool) == ((3, 4), -1)
    assert plain.arranged().order == list(range(12))


def test_sorted_within_each_layer() -> None:
    shown = PLACES.arranged(VALUES)
    # The mean over layers of a head's number has no place among sorted heads; what has no value stands last.
    assert shown.order == [*(1, 0, 2, 3), *(6, 4, 5, 7), *(9, 8, -1, 11), *(-1, -1, -1, 15)]
    assert shown.columns == ["1.", "2.", "3.", "mean"]
    assert [shown.marks[place] for place in (0, 6, 3, 9)] == ["0.0", "1.2", "", "pool 1"]
    lowest = PLACES.arranged(VALUES, highest_first=False)
    assert lowest.order[:8] == [0, 1, 2, 3, 5, 4, 6, 7]


def test_sorted_over_all_layers() -> None:
    shown = PLACES.arranged(VALUES, "all layers")
    assert shown.order == [*(1, 6, 4), *(0, 5, 2), *(8, 9, -1), *(15, -1, -1)]
    assert (shown.names, shown.across, shown.split) == (["1.", "4.", "pool", "mean"], 3, [3, 0])


def test_words() -> None:
    said = [PLACES.words(*cell) for cell in ((1, 2), (1, 3), (2, 1), (2, 3), (3, 0), (3, 3))]
    assert said == [
        "layer 1, head 2",
        "layer 1, mean over heads",
        "pool, head 1",
        "pool, mean over heads",
        "mean over layers, head 0",
        "mean over layers and heads",
    ]
    assert PLACES.nearest(2, 2) == (2, 1) and PLACES.nearest(2, 3) == (2, 3)
