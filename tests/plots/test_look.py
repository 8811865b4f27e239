"""One look for all pictures of maps, by the same words and defaults."""

import inspect
from collections.abc import Callable

import pytest

import caap_lab as cl
from caap_lab.plots.look import LOOK
from caap_lab.plots.maps import plot_map
from caap_lab.widgets.board import BY_SIGN, Board


@pytest.mark.parametrize(
    "draws", [cl.AttributionMap.plot, cl.AttributionMap.overlay, cl.MapList.plot, cl.gallery, plot_map]
)
def test_every_picture_of_maps_has_the_same_options(draws: Callable) -> None:
    options = inspect.signature(draws).parameters
    assert {name: options[name].default for name in LOOK._fields} == LOOK._asdict()
    assert all(option.kind is not inspect.Parameter.VAR_KEYWORD for option in options.values())
    assert all(f"{name}:" in (draws.__doc__ or "") for name in LOOK._fields)


def test_the_browser_starts_with_the_same_look() -> None:
    board = Board()
    assert all(getattr(board, name) == getattr(LOOK, name) for name in ("opacity", "smooth", "robust", "fade"))
    assert board.colours == BY_SIGN and LOOK.colour_map is None
    board.close()
