"""What a board hands to the browser; tests/browser/test_board.py has what the browser makes of it."""

import numpy as np
import pytest
import traitlets

import caap_lab as cl
from caap_lab.plots.maps import map_range, opaque_table, overlay_table
from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP
from caap_lab.widgets.board import BY_SIGN, COLOUR_MAPS, Board, Tile, colour_tile, map_tile, photo_tile

SCORES = np.array([[0.0, 1.0, 2.0], [-3.0, 4.0, 40.0]])


def made(scores: np.ndarray | None = SCORES, **options: object) -> Tile:
    return map_tile("m", "photo", "A map", scores, (2, 3), "logit", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("signed", [False, True])
def test_ends_of_the_colours_are_those_of_figures(signed: bool) -> None:
    tile = made(signed=signed)
    assert tile["full"] == list(map_range(SCORES, signed))
    assert tile["robust"] == list(map_range(SCORES, signed, robust=True))
    assert tile["robust"][1] < tile["full"][1]
    assert np.array_equal(np.frombuffer(tile["scores"], "<f4").reshape(2, 3), SCORES)


def test_colours_around_another_middle() -> None:
    tile = made(SCORES, signed=True, middle=1.0)
    assert (tile["middle"], tile["full"]) == (1.0, [-38.0, 40.0])
    low, high = tile["robust"]
    assert (low + high) / 2 == pytest.approx(1.0)


def test_scores_that_are_not_known_yet_do_not_count() -> None:
    partly = np.where(SCORES > 10, np.nan, SCORES)
    assert made(partly)["full"] == [-3.0, 4.0]
    for nothing in (None, np.full((2, 3), np.nan)):
        tile = made(nothing)
        assert "full" not in tile
        assert "robust" not in tile


def test_given_ends_hold_for_both_ranges() -> None:
    tile = made(limits=(0.0, 1.0), locked=(-5.0, 5.0))
    assert tile["full"] == tile["robust"] == [0.0, 1.0]
    assert tile["locked"] == [-5.0, 5.0]


def test_tables_are_those_of_figures() -> None:
    tables = Board().tables
    kinds = ("", " signed", " opaque signed")
    assert set(tables) == {f"{name}{kind}" for name in COLOUR_MAPS for kind in kinds}
    assert tables[BY_SIGN] == overlay_table(COLOUR_MAP).tobytes()
    assert tables[f"{BY_SIGN} signed"] == overlay_table(SIGNED_COLOUR_MAP, signed=True).tobytes()
    assert tables[f"{BY_SIGN} opaque signed"] == opaque_table(SIGNED_COLOUR_MAP).tobytes()
    assert tables["magma signed"] == overlay_table("magma", signed=True).tobytes()


def test_refusals() -> None:
    with pytest.raises(cl.InputError, match=r"\(2, 3\) scores does not fit a grid of \(3, 2\)"):
        map_tile("m", "photo", "A map", SCORES, (3, 2), "logit")
    with pytest.raises(cl.InputError, match="keys of a board's tiles have to be unique"):
        Board(tiles=[made(), made()])
    board = Board()
    for trait, value in (("mode", "draw"), ("colours", "jet"), ("signs", "both"), ("top", -1)):
        with pytest.raises(traitlets.TraitError):
            setattr(board, trait, value)


def test_tiles_by_their_keys() -> None:
    colours = np.zeros((2, 3, 4), dtype=np.uint8)
    board = Board(
        tiles=[photo_tile("photo", "a", "A", (2, 3), tips=["x"] * 6), colour_tile("c", "a", "C", colours, paint=True)]
    )
    assert board.tile("photo")["kind"] == "photo"
    assert board.tile("c")["paint"] is True
    assert len(board.tile("c")["rgba"]) == 24
