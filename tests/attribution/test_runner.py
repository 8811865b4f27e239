"""The one runner: whatever the method, CAAP among them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution import runner
from caap_lab.attribution.caap_maps import caap_maps
from caap_lab.attribution.registry import METHODS
from caap_lab.engine.settings import CaapSettings
from caap_lab.models import pass_meter
from caap_lab.models.running import held
from helpers.models import build, random_images

NAMES = ("caap", "rollout")
RUNS: list[Callable[..., Any]] = [cl.caap, lambda *a, **k: cl.attribute(*a[:2], "rollout", *a[2:], **k)]
EACH = pytest.mark.parametrize("run", RUNS, ids=NAMES)


class Bar:
    """Stands in for tqdm, and keeps what it was told."""

    def __init__(self, total: int, unit: str, disable: bool = False, **others: Any) -> None:
        self.total, self.unit, self.disable, self.n = total, unit, disable, 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        self.n += steps


@EACH
def test_progress_is_one_step_per_image(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Bar] = []
    monkeypatch.setattr(pass_meter, "tqdm", lambda **k: bars.append(Bar(**k)) or bars[-1])
    model = build("vit")
    run(model, random_images(model, 3), 0, batch_size=2)
    run(model, random_images(model, 2), 0, progress=False)
    run(model, random_images(model, 1), 0)
    assert [(bar.total, bar.n, bar.disable) for bar in bars if bar.unit == "map"] == [
        (3, 3, False),
        (2, 0, True),
        (1, 0, True),
    ]


@EACH
def test_images_run_in_batches(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    sizes: list[int] = []
    batches = runner.batches
    monkeypatch.setattr(runner, "batches", lambda *a: (sizes.append(len(b)) or b for b in batches(*a)))
    run(model, random_images(model, 5), 0, batch_size=2, progress=False)
    assert sizes == [2, 2, 1]


@EACH
def test_autocast_is_off(run: Callable[..., Any]) -> None:
    model = build("vit")
    image = random_images(model, 1)
    expected = run(model, image, 0).scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(run(model, image, 0).scores, expected)


@EACH
def test_the_model_is_held_and_in_evaluation_mode(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    calls: list[str] = []
    monkeypatch.setattr("caap_lab.models.running.held", lambda model: calls.append("held") or held(model))
    run(model, random_images(model, 1), 0)
    assert calls[0] == "held"
    with pytest.raises(cl.InputError, match="training mode"):
        run(model.train(), random_images(model, 1), 0)


@pytest.mark.parametrize("name", NAMES)
def test_scores_that_are_not_finite_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    image = random_images(model, 1)

    def broken(model: Any, options: Any, batch_size: int) -> runner.MapJob:
        scores = torch.full((1, 4, 4), float("inf"))
        return runner.MapJob(name, "level", 1, lambda images, targets: [runner.BatchScores(scores, [0], "logit", {})])

    monkeypatch.setitem(METHODS, name, replace(METHODS[name], prepare=broken))
    with pytest.raises(cl.InputError, match=f"{name} returns NaN or infinity on this image"):
        cl.attribute(model, image, name, 0)


def test_a_method_may_have_the_scores_of_all_classes_at_once() -> None:
    def every(model, images, targets):
        return torch.arange(16.0 * model.n_classes).view(1, 4, 4, -1).expand(len(images), -1, -1, -1)

    cl.register("every", every)
    try:
        model = build("vit")
        one, other = cl.attribute(model, random_images(model, 2), "every", [2, 5], progress=False)
        assert one.all_scores.shape == (4, 4, model.n_classes)
        assert torch.equal(one.scores, one.all_scores[..., 2]) and torch.equal(other.scores, one.for_target(5).scores)
        cl.register("every", lambda model, images, targets: torch.zeros(len(images), 4, 4, 3))
        with pytest.raises(cl.InputError, match=r"must return scores \[1, row, col\]"):
            cl.attribute(model, random_images(model, 1), "every", 0)
    finally:
        del METHODS["every"]


def test_options_of_caap_are_checked_as_those_of_any_method() -> None:
    model = build("vit")
    message = r"caap has no option 'cutof'\. Nearest: cutoff, direction, score\. Its options are cutoff, start, neigh"
    with pytest.raises(cl.InputError, match=message):
        cl.attribute(model, random_images(model, 1), "caap", 0, cutof=3)


def test_several_settings_of_caap_share_one_run_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from caap_lab.engine import patched_logits

    model = build("vit")
    images = random_images(model, 3)
    settings = [
        CaapSettings(cutoff=3),
        CaapSettings(cutoff=1),
        CaapSettings(start=1, cutoff=3, score="prob"),
        CaapSettings(cutoff=3, score="logprob"),
    ]
    runs = []
    run_source = patched_logits.run_source
    monkeypatch.setattr(patched_logits, "run_source", lambda *a: runs.append(len(a[1])) or run_source(*a))
    maps = caap_maps(model, images, None, settings, batch_size=2)
    assert runs == [2, 1] and [len(of_image) for of_image in maps] == [4, 4, 4]
    monkeypatch.undo()
    for image, of_image in zip(images, maps, strict=True):
        for one, m in zip(settings, of_image, strict=True):
            alone = cl.caap(model, image, start=one.start, cutoff=one.cutoff, score=one.score)
            assert (m.target, m.score, m.settings) == (alone.target, alone.score, alone.settings)
            torch.testing.assert_close(m.all_scores, alone.all_scores, atol=1e-5, rtol=1e-5)
