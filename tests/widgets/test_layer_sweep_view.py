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
from caap_lab.widgets import layer_sweep_view
from caap_lab.widgets.background import Worker
from caap_lab.widgets.layer_sweep_view import LayerSweep, layer_sweep
from caap_lab.widgets.pixels import map_colours
from helpers.widgets import finished


@pytest.fixture(scope="module")
def sweep(model: cl.HookedViT, scenes: list[Any]) -> Iterator[LayerSweep]:
    made = layer_sweep(model, scenes[0].image)
    finished(made)
    yield made
    made.close()


def test_slider_shows_the_single_call(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    changes: list[dict[str, Any]] = [{"cutoff": 3}, {"blank": "noise"}, {"neighbourhood": "none"}, {"context": "free"}]
    for change in [*changes, {"start": 2}, {"context": "clamped"}]:
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
    for name, value in {"start": 0, "blank": "white", "neighbourhood": "box1", "cutoff": 5}.items():
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
    distances = [abs(cutoff - 2) for cutoff in made._here.maps]
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


def test_opacity_sends_no_picture_again(sweep: LayerSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sweep.picture.overlay
    monkeypatch.setattr(layer_sweep_view, "png", lambda pixels: pytest.fail("a picture was encoded again"))
    sweep.opacity.value = 0.25
    assert (sweep.picture.opacity, sweep.picture.overlay, sweep.message) == (0.25, before, "")
    assert sweep.to_figure().axes[0].images[1].get_alpha() == 0.25
    sweep.opacity.value = 0.6


def test_overlay_colours_are_those_of_the_plot(sweep: LayerSweep) -> None:
    m = sweep.map
    assert m is not None
    colours = map_colours(m)
    assert colours.shape == (8, 8, 4)
    row, col = m.rank()[0]
    assert colours[row, col].tolist() == [253, 231, 36, 255]  # the end of viridis


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
        assert made.picture.caption.startswith(f"{made.map.target_name}, cutoff 8 of 8")
        assert made.to_figure().axes[0].get_title() == f"demo, {made.map.target_name}, cutoff 8"
        made.target_box.value = "4"
        assert made.map.target == 4
        made.target_box.value = ""
        assert made.map.target == int(model(scenes[1].image)[0].argmax())
        finished(made)
        assert list(made.values) == [8]  # of this target alone, where curves of several at one cutoff are known
        made.close()
