"""Choosing tokens."""

import numpy as np
import pytest
import torch

from caap_lab import InputError, tokens
from caap_lab.models.neighbour_tables import neighbourhood_table
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from helpers.models import build


def test_choices_on_a_grid_with_one_class_token() -> None:
    spec = build("vit").spec  # 4 x 4
    assert tokens.cell(1, 2).indices(spec) == [1 + 4 + 2]
    assert tokens.box(1, 1, 3, 3).indices(spec) == [6, 7, 10, 11]
    assert tokens.prefix().indices(spec) == [0] == tokens.cls().indices(spec)
    assert tokens.patches().indices(spec) == list(range(1, 17))
    assert tokens.all().indices(spec) == list(range(17))


def test_choices_follow_the_prefix_tokens() -> None:
    assert tokens.cell(0, 0).indices(build("siglip").spec) == [0]
    assert tokens.cell(0, 0).indices(build("deit_distilled").spec) == [2]
    assert tokens.cell(0, 0).indices(build("dinov2_registers").spec) == [5]
    assert tokens.prefix().indices(build("dinov2_registers").spec) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind, size, corner", [("none", 1, 1), ("cross1", 5, 3), ("box1", 9, 4)])
def test_neighbourhoods_are_clipped_not_wrapped(kind: str, size: int, corner: int) -> None:
    spec = build("vit").spec
    assert len(tokens.neighbourhood(1, 1, kind).indices(spec)) == size
    assert len(tokens.neighbourhood(0, 0, kind).indices(spec)) == corner


def test_neighbourhood_sizes() -> None:
    assert {k: len(v) for k, v in NEIGHBOURHOODS.items()} == {
        "none": 1,
        "cross1": 5,
        "box1": 9,
        "diamond2": 13,
        "box2": 25,
    }


@pytest.mark.parametrize("kind", NEIGHBOURHOODS)
@pytest.mark.parametrize("family", ["vit", "odd_grid"])
def test_table_holds_the_same_as_the_chooser(family: str, kind: str) -> None:
    spec = build(family).spec
    table = neighbourhood_table(spec.grid, kind)
    for row in range(spec.grid[0]):
        for col in range(spec.grid[1]):
            patch = row * spec.grid[1] + col
            found = table[patch][table[patch] >= 0] + spec.n_prefix
            assert table[patch, 0] == patch
            assert sorted(found.tolist()) == sorted(tokens.neighbourhood(row, col, kind).indices(spec))


def test_mask_takes_patches_by_their_share() -> None:
    spec = build("vit").spec
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:16, 8:13] = True  # 5/8 of patch (1, 1)
    assert tokens.mask(mask).indices(spec) == [6]
    assert tokens.mask(torch.from_numpy(mask), threshold=0.6).indices(spec) == [6]
    grid = np.zeros((4, 4))
    grid[3, 3] = 1
    assert tokens.mask(grid).indices(spec) == [16]
    with pytest.raises(InputError, match="chooses no token"):
        tokens.mask(mask, threshold=0.7).indices(spec)


def test_bad_choices_are_refused() -> None:
    spec = build("vit").spec
    for choice, message in [
        (tokens.cell(4, 0), "outside the 4 x 4 grid"),
        (tokens.cell(0, -1), "outside"),
        (tokens.box(2, 2, 2, 3), "not inside"),
        (tokens.box(0, 0, 5, 1), "not inside"),
        (tokens.neighbourhood(9, 9), "outside"),
        (tokens.mask(np.ones((31, 32))), r"The mask is 31 x 32; the model's input is 32 x 32"),
        (tokens.mask(np.zeros((32, 32))), "chooses no token"),
    ]:
        with pytest.raises(InputError, match=message):
            choice.indices(spec)
    with pytest.raises(InputError, match="threshold"):
        tokens.mask(np.ones((4, 4)), threshold=0)
    with pytest.raises(InputError, match="no neighbourhood"):
        tokens.neighbourhood(0, 0, "ring")


def test_choices_say_what_they_are() -> None:
    assert repr(tokens.box(1, 2, 3, 4)) == "tokens.box(1, 2, 3, 4)"
