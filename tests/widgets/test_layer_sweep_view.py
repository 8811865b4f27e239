"""`cl.widgets.layer_sweep` without a browser: what it shows is what the calls give."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.models.directions import direction
from caap_lab.models.targets import contrast
from caap_lab.plots.maps import map_range
from caap_lab.widgets.background import Worker
from caap_lab.widgets.cutoff_strip import strip
from caap_lab.widgets.layer_sweep_view import LayerSweep, layer_sweep
from helpers.widgets import finished


@pytest.fixture(scope="module")
def sweep(model: cl.HookedViT, scenes: list[Any]) -> Iterator[LayerSweep]:
    made = layer_sweep(model, scenes[0].image)
    finished(made)
    yield made
    made.close()


def test_slider_shows_the_single_call(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    changes: list[dict[str, Any]] = [{"cutoff": 3}, {"blank": "noise"}, {"neighbourhood": "none"}, {"context": "free"}]
    for change in [*changes, {"start": 2}, {"context": "clamped", "direction": "remove"}]:
        for name, value in change.items():
            getattr(sweep, name).value = value
        finished(sweep)
        expected = cl.caap(model, scenes[0].image, **sweep.settings)
        assert sweep.map is not None
        assert torch.equal(sweep.map.scores, expected.scores), sweep.settings
        said = eval(
            sweep.link.split("\n")[0].removeprefix("m = "), {"cl": cl, "model": model, "image": scenes[0].image}
        )
        assert torch.equal(said.scores, expected.scores)
    usual = {"start": 0, "blank": "white", "neighbourhood": "box1", "direction": "insert", "cutoff": 5}
    for name, value in usual.items():
        getattr(sweep, name).value = value
    finished(sweep)


def test_curve_is_that_of_the_sweep(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    expected = cl.sweep_cutoffs(model, [scenes[0].image], progress=False).to_dataframe().set_index("cutoff")
    for metric in ("insdel", "insertion", "deletion"):
        sweep.metric.value = metric
        assert list(sweep.values) == list(range(9))
        np.testing.assert_allclose(
            list(sweep.values.values()), expected.loc[list(sweep.values), metric], atol=1e-6, rtol=0
        )
        assert sweep.curve.series[0]["values"] == list(sweep.values.values())
    sweep.metric.value = "insdel"


def test_likely_classes_come_first(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    likeliest = model(scenes[0].image)[0].argmax().item()
    known = np.frombuffer(sweep.target_box.likelihoods, dtype="<f4")
    assert len(known) == model.n_classes and known.argmax() == likeliest
    assert model.class_names.name(likeliest) in sweep.target_box.placeholder


def test_cutoff_stays_above_the_start(sweep: LayerSweep) -> None:
    sweep.cutoff.value = 2
    sweep.start.value = 4
    assert (sweep.cutoff.value, sweep.cutoff.min, sweep.message) == (5, 5, "")
    sweep.curve.current = 1  # a click on the chart
    assert sweep.cutoff.value == 5
    sweep.start.value = 0
    sweep.curve.current = 1
    assert sweep.cutoff.value == 1
    sweep.cutoff.value = 5
    finished(sweep)


def test_nearest_cutoffs_come_first(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    go, work = threading.Event(), Worker._work
    monkeypatch.setattr(Worker, "_work", lambda self: (go.wait(), work(self)))
    made = layer_sweep(model, scenes[1].image)
    made.cutoff.value = 2
    go.set()
    finished(made)
    for computed in (made._here.maps, [cutoff for cutoff, _ in made._here.curves]):
        distances = [abs(cutoff - 2) for cutoff in computed]
        assert len(distances) == 9 and distances == sorted(distances)
    made.close()


def test_another_class_needs_new_curves_and_no_new_maps(sweep: LayerSweep, scenes: list[Any]) -> None:
    maps = dict(sweep._here.maps)
    sweep.target_box.value = str(scenes[0].labels[0])
    finished(sweep)
    assert sweep._here.maps == maps
    assert sweep.map is not None and sweep.map.target == scenes[0].labels[0]
    assert len(sweep.values) == 9
    sweep.target_box.value = ""
    finished(sweep)


def test_sweep_figure(sweep: LayerSweep) -> None:
    left, right = sweep.to_figure().axes[:2]
    assert "cutoff 5" in left.get_title()
    assert right.get_xlabel() == "cutoff (blocks patched)"
    assert len(right.lines[0].get_xdata()) == 9


def test_the_figure_looks_like_the_board(sweep: LayerSweep) -> None:
    for look in ({"opacity": 0.25}, {"smooth": True, "lock": False}, {"colours": "magma", "robust": False}):
        for name, value in look.items():
            sweep.board.set_trait(name, value)
        image = sweep.to_figure().axes[0].images[-1]
        limits = (
            sweep._here.limits(sweep.target, robust=sweep.board.robust)
            if sweep.board.lock
            else map_range(sweep.map.scores.double().numpy(), robust=sweep.board.robust)
        )
        assert (image.norm.vmin, image.norm.vmax) == pytest.approx(limits)
        assert sweep.message == ""
    assert image.cmap.name == "magma" and image.get_interpolation() == "bilinear"
    for name, value in {"opacity": 0.8, "smooth": False, "lock": True, "colours": "by sign", "robust": True}.items():
        sweep.board.set_trait(name, value)


def test_colours_are_those_of_all_cutoffs(sweep: LayerSweep) -> None:
    finished(sweep)
    scores = np.stack([sweep._here.map(cutoff, sweep.target).scores.double().numpy() for cutoff in range(9)])
    assert sweep.board.lock
    for cutoff in (1, 8):
        sweep.cutoff.value = cutoff
        locked = sweep.board.tile("map")["locked"]
        assert locked["full"] == pytest.approx((scores.min(), scores.max()))
        assert locked["robust"] == pytest.approx(np.percentile(scores, (2, 98)))
    sweep.cutoff.value = 5
    # So are those of the thumbnails, until the scale is not locked any more.
    low, high = locked["robust"]
    tiles = np.frombuffer(sweep.strip.tiles, dtype="<u2").reshape(9, 8, 8)
    np.testing.assert_array_equal(tiles, np.rint(65535 * ((scores - low) / (high - low)).clip(0, 1)))
    sweep.board.lock = False
    lows = np.frombuffer(sweep.strip.lows, dtype="<f4")
    np.testing.assert_allclose(lows, [map_range(each, robust=True)[0] for each in scores], rtol=1e-6)
    sweep.board.lock = True


def test_thumbnails_go_to_their_cutoff(sweep: LayerSweep) -> None:
    sweep.strip.chosen = [0, 3]
    assert (sweep.cutoff.value, sweep.curve.current) == (3, 3)
    sweep.curve.current = 7
    assert (sweep.cutoff.value, sweep.strip.chosen) == (7, [0, 7])
    assert sweep.strip.tips[7] == f"cutoff 7: insertion - deletion {sweep.values[7]:.3g}"
    sweep.start.value = 3
    assert sweep.strip.order == [-1, -1, -1, -1, 4, 5, 6, 7, 8]
    sweep.strip.chosen = [0, 2]  # there is none: back to one that there is
    assert (sweep.cutoff.value, sweep.strip.chosen) == (4, [0, 4])
    sweep.start.value = 0
    sweep.cutoff.value = 5
    finished(sweep)


def test_thumbnails_of_large_models_stand_in_several_rows() -> None:
    assert [(strip(count, (2, 2)).across, len(strip(count, (2, 2)).names)) for count in (9, 13, 25, 41)] == [
        *((9, 1), (13, 1), (13, 2), (14, 3))
    ]


def test_small_differences_look_small(sweep: LayerSweep) -> None:
    low, high = sweep.curve.limits
    assert low < min(sweep.values.values()) and high > max(sweep.values.values())
    sweep.metric.value = "insertion"
    for values, span in (({3: 0.58, 4: 0.62}, (0.475, 0.725)), ({}, (0, 1))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LayerSweep, "values", values)
            sweep._draw_curve()
        room = 0.04 * (span[1] - span[0])
        assert sweep.curve.limits == pytest.approx([span[0] - room, span[1] + room])
    sweep.metric.value = "insdel"


def test_play_becomes_pause_and_stops_at_the_end(sweep: LayerSweep) -> None:
    later: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LayerSweep, "_later", lambda self, seconds, call: later.append(call))
        sweep.cutoff.value = 6
        sweep.play.value = True
        assert (sweep.play.icon, sweep.play.description, sweep.cutoff.value) == ("pause", "pause", 6)
        sweep.play.value = False
        sweep.play.value = True
        later.pop(0)()  # of the first press: does nothing more
        assert (sweep.cutoff.value, len(later)) == (6, 1)
        seen = []
        while later:
            later.pop(0)()
            seen.append(sweep.cutoff.value)
        assert seen == [7, 8] and not sweep.play.value
        assert (sweep.play.icon, sweep.play.description) == ("play", "play")
        sweep.play.value = True  # from the beginning
        assert sweep.cutoff.value == 0
        sweep.play.value = False
    sweep.cutoff.value = 5


def test_other_targets_of_the_call(model: cl.HookedViT, scenes: list[Any]) -> None:
    probe = direction(torch.randn(model.spec.d_model, generator=torch.Generator().manual_seed(0)), "striped")
    for target, text in ((contrast(3, 5), "cl.contrast(3, 5)"), (probe, "target")):
        made = layer_sweep(model, scenes[1].image, target)
        made.start.value = 7  # one map is enough
        finished(made)
        expected = cl.caap(model, scenes[1].image, target, cutoff=8, start=7)
        made.cutoff.value = 8
        assert made.map is not None and made.map.target == target
        torch.testing.assert_close(made.map.scores, expected.scores)
        curves = cl.insertion_deletion(model, scenes[1].image, expected, protocol="rise-28")
        assert made.values[8] == pytest.approx(curves.insdel, abs=1e-5)
        assert f"target={text}," in made.link and f"], {text}, cutoffs=" in made.link
        assert made.board.tile("map")["caption"] == f"{made.map.target_name}, cutoff 8 of 8"
        assert made.to_figure().axes[0].get_title() == f"demo, {made.map.target_name}, cutoff 8"
        made.target_box.value = "4"
        assert made.map.target == 4
        made.target_box.value = ""
        assert made.map.target == int(model(scenes[1].image)[0].argmax())
        finished(made)
        assert list(made.values) == [8]  # of this target alone, where curves of several at one cutoff are known
        made.close()
