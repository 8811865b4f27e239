"""Progress within one long computation: counted in passes, by blocks, and only where it is asked for."""

from collections.abc import Callable
from typing import Any

import pytest

import caap_lab as cl
from caap_lab.models import pass_meter
from caap_lab.models.pass_meter import count_passes, images_shown, passes_shown
from helpers.models import build, random_images


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bars that were shown, without their delay."""
    made, tqdm = [], pass_meter.tqdm

    def make(**options: Any) -> Any:
        bar = tqdm(**(options | {"delay": 0, "mininterval": 0}))
        if not options.get("disable"):
            made.append(bar)
        return bar

    monkeypatch.setattr(pass_meter, "tqdm", make)
    return made


RUNS: dict[str, tuple[Callable[[Any, Any], Any], str, float]] = {
    "rise": (lambda m, x: cl.attribute(m, x[0], "rise", samples=20), "rise: 1 map", 1.0),
    "caap": (lambda m, x: cl.caap(m, x[0]), "caap: 1 map", 0.4),
    "insertion_deletion": (
        lambda m, x: cl.insertion_deletion(m, x[0], cl.caap(m, x[0], progress=False), protocol="patches"),
        "insertion and deletion: 1 map",
        0.8,
    ),
    "record": (lambda m, x: m.record(x, "resid_post"), "recording: 2 images", 1.0),
    "lens": (lambda m, x: cl.logit_lens(m, x), "logit lens: 2 images", 0.7),
    "rollout": (lambda m, x: cl.attribute(m, x, "rollout"), "rollout: 2 maps", 1.0),
    "saco": (
        lambda m, x: cl.saco(m, x[0], cl.attribute(m, x[0], "rollout", progress=False)),
        "SaCo: 1 map",
        1.0,
    ),
    "completeness": (lambda m, x: cl.completeness_error(m, x[0]), "completeness: 1 image", 0.5),
}


@pytest.mark.parametrize("name", RUNS)
def test_one_map_or_batch_shows_how_far_it_is(name: str, bars: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    run, what, share = RUNS[name]
    model = build("vit")
    run(model, random_images(model, 2))
    assert [bar.desc for bar in bars] == [what]
    assert share * bars[0].total <= bars[0].n <= bars[0].total and what in capfd.readouterr().err


def test_nothing_is_shown_where_it_is_not_wanted(bars: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    model = build("vit")
    x = random_images(model, 2)
    model.record(x, "resid_post", progress=False)
    cl.caap(model, x[0], progress=False)
    cl.sweep_cutoffs(model, x[:1], cutoffs=[1], protocol="xplique", progress=False)
    assert not bars and capfd.readouterr().err == ""


def test_bars_are_not_nested_and_end(bars: list[Any]) -> None:
    with pytest.raises(ZeroDivisionError), passes_shown("outer", 10, True):
        with passes_shown("inner", 3, True):
            count_passes(2.5)
            count_passes(0.5)
        assert [(bar.desc, bar.n) for bar in bars] == [("outer", 3)]
        count_passes(100)
        assert bars[0].n == 10
        raise ZeroDivisionError
    count_passes(1)  # of nobody
    assert len(bars) == 1


def test_a_bar_over_several_moves_on_within_each(bars: list[Any]) -> None:
    with images_shown("maps", 3, 1, True, "map", passes=10) as shown:
        seen = []
        for passes in (0.4, 3.2, 0.0, 9.0, 2.0):
            count_passes(passes)
            seen.append(bars[0].n)
        shown.update()
        seen.append(bars[0].n)
        count_passes(5)
        seen.append(bars[0].n)
        shown.update(2)
        seen.append(bars[0].n)
    assert seen == [0, 0.3, 0.3, 0.9, 0.9, 1, 1.5, 3] and shown.n == 3  # whole ones are those that are finished
    assert [bar.desc for bar in bars] == ["maps"]
    with images_shown("maps", 2, 1, True, "map", passes=None) as shown:  # of unknown cost: as they are finished
        count_passes(5)
        assert bars[-1].n == 0
    with images_shown("maps", 2, 1, False, "map") as shown:
        count_passes(5)
        shown.update(2)
    assert len(bars) == 2 and shown.n == 2
