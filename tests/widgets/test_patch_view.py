"""`cl.widgets.patch` without a browser: what it shows is what the calls give."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import caap_lab as cl
from caap_lab import InputError
from caap_lab.widgets.patch_calls import patch_calls
from caap_lab.widgets.patch_runs import PatchRuns
from caap_lab.widgets.patch_settings import OTHERS, PUT_IN, PatchSettings, points_of
from caap_lab.widgets.patch_view import EMPTY, PatchView
from caap_lab.widgets.photos import photos_of
from helpers.black_boxes import small_black_box
from helpers.models import build, random_images
from helpers.widgets import finished

FAMILIES = ("dinov2_registers", "siglip", "deit_distilled", "beit")


@pytest.fixture(scope="module")
def made() -> tuple[cl.HookedViT, torch.Tensor]:
    model = build("dinov2_registers")
    return model, random_images(model, 3)


@pytest.fixture(scope="module")
def view(made: Any) -> Iterator[PatchView]:
    shown = cl.widgets.patch(*made)
    finished(shown)
    yield shown
    shown.close()


@pytest.fixture
def reset(view: PatchView, made: Any) -> PatchView:
    """The widget with four patches of the first image put into the second."""
    source, target, *_ = view.photos.every
    point = view.controls.named("resid_pre")
    start = PatchSettings(source, target, point, (0, 1), (5, 6, 9, 10), (), (), "source", "evolve")
    view.target_box.value = ""
    view._set(start)
    finished(view)
    return view


def said(view: PatchView, made: Any) -> dict[str, Any]:
    """What the calls shown give."""
    known = {"cl": cl, "model": made[0], "images": made[1]}
    with torch.no_grad():
        exec(view.link, known)
    return known


def check(view: PatchView, made: Any) -> None:
    """The calls shown, and the patches as objects, give the numbers shown."""
    finished(view)
    assert view.message == "" and view.result is not None
    known = said(view, made)
    with torch.no_grad():
        again = made[0].run_patched(view.settings.target.x, view.patches)
    for name, logits in (("before", known["before"]), ("after", known["after"]), ("after", again)):
        assert torch.allclose(getattr(view.result, name), logits[0], atol=1e-5)
    assert view.patches[-1] is view.patch


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_are_those_of_the_calls(family: str) -> None:
    """Every point in one family, every replacement in all."""
    model = build(family)
    images = random_images(model, 3)
    photos, runs = photos_of(model, images), PatchRuns(model)
    first = FAMILIES.index(family)
    for number, point in enumerate(points_of(model)[first :: len(FAMILIES)], first):
        put_in = PUT_IN[number % len(PUT_IN)]
        if put_in == "token_mean" and not point.has_tokens:
            put_in = "mean"
        prefix = (0,) if model.spec.n_prefix and point.name != "embed" else ()
        heads, others = ((1,) if point.heads > 1 else ()), OTHERS[number // 2 % 2]
        settings = PatchSettings(photos[0], photos[1], point, (1, 2), (1, 2, 5, 6), prefix, heads, put_in, others)
        settings = settings.cleaned()
        found, _ = runs.logits(settings, photos, 1)
        known = {"cl": cl, "model": model, "images": images}
        with torch.no_grad():
            exec("\n".join(patch_calls(model, settings, photos, 1)), known)
            source = model(images[:1])
        assert torch.allclose(found.before, known["before"][0], atol=1e-5)
        assert torch.allclose(found.after, known["after"][0], atol=1e-5), (point, put_in)
        assert torch.allclose(found.source, source[0], atol=1e-5)


def test_controls_change_the_patch(reset: PatchView, made: Any) -> None:
    view, controls = reset, reset.controls
    check(view, made)
    assert "cl.tokens.box(1, 1, 3, 3)" in view.link and "range(0, 2)" in view.link
    for control, name, value in (
        (view.board, "chosen", [0, 0]),  # a click on the target photo
        (view.board, "box", [3, 0, 3, 3]),
        (controls.prefix, "chosen", [0, 2]),
        (controls.layers, "value", (2, 2)),
        (controls.point, "value", controls.named("z")),
        (controls.heads, "chosen", [1]),
        (controls.put_in, "value", "shuffled"),
        (controls.others, "value", "held"),
        (view.photos.target, "chosen", 3),
        (view.photos.source, "chosen", 2),
    ):
        before = view.settings
        control.set_trait(name, value)
        assert view.settings != before
        check(view, made)
    assert view.settings.cells == (0, 5, 6, 9, 10, 12, 13, 14, 15) and (view.board.chosen, view.board.box) == ([], [])
    assert view.patch.heads == [1] and view.settings.target.name == "white blank"
    target = np.frombuffer(view.board.tile("target")["rgba"], np.uint8).reshape(-1, 4)
    assert (np.flatnonzero(target[:, 3]) == view.settings.cells).all()


def test_a_patch_by_hand_gives_caaps_score(reset: PatchView, made: Any) -> None:
    model, images = made
    view = reset
    view.board.painted = [1]
    view.controls.as_caap.click()
    check(view, made)
    m = cl.caap(model, images[0], target=view.result.target.given)
    assert view.result.scores["after"] == pytest.approx(float(m.scores[0, 1]), abs=1e-4)
    assert len(view.settings.cells) == 6 and view.settings.target.name == "white blank"
    view.controls.others.value = "evolve"
    view.controls.layers.value = (0, 1)
    check(view, made)
    free = cl.caap(model, images[0], target=view.result.target.given, context="free", cutoff=2)
    assert view.result.scores["after"] == pytest.approx(float(free.scores[0, 1]), abs=1e-4)


def test_what_is_shown(reset: PatchView, made: Any) -> None:
    view, (model, _) = reset, made
    result = view.result
    assert int(result.source.argmax()) == result.target.given  # the source photo's class
    assert result.effect == pytest.approx(float((result.after - result.before)[result.target.given]), abs=1e-5)
    assert f"{result.effect:+.3f}" in view._score.value and f"{result.share:.0%} of the way" in view._score.value
    frame = view.to_dataframe()
    assert len(frame) == model.n_classes and frame["logit_change"].to_numpy() == pytest.approx(
        (result.after - result.before).numpy(), abs=1e-6
    )
    for index in result.shown_classes():
        assert f"{index}: {model.class_names.name(index)}" in view._classes.value
    view.target_box.value = "3"
    finished(view)
    assert view.result.scores["after"] == pytest.approx(float(result.after[3]))
    view.target_box.against = "5"
    finished(view)
    assert view.result.scores["after"] == pytest.approx(float(result.after[3] - result.after[5]), abs=1e-5)
    view.target_box.against = view.target_box.value = ""
    view.controls.put_in.value = "zero"
    finished(view)
    assert int(view.result.before.argmax()) == view.result.target.given and "of the way" not in view._score.value
    figure = view.to_figure()
    assert [ax.get_title().split(":")[0] for ax in figure.axes[:2]] == ["source", "target"]
    assert "zeros" in figure.axes[2].get_title()


def test_history_leads_back(reset: PatchView, made: Any) -> None:
    view = reset
    first, effect = view.settings, view.result.effect
    view.controls.point.value = view.controls.named("mlp_out")
    finished(view)
    assert view.history.rows[0]["what"] == "mlp_out, layers 0 to 1" and view.history.chosen == 0
    place = next(place for place, row in enumerate(view.history.rows) if row["effect"] == f"{effect:+.3f}")
    view.history.chosen = place
    check(view, made)
    assert view.settings == first and view.history.chosen == place


def test_refusals_are_said(reset: PatchView, made: Any) -> None:
    model, images = made
    view = reset
    view.controls.clear.click()
    finished(view)
    assert torch.equal(view.result.before, view.result.after) and view.patch is None and view.message == ""
    assert view._score.value == EMPTY and torch.equal(said(view, made)["after"][0], view.result.after)
    view.controls.every.click()
    view.controls.point.value = view.controls.named("mlp_out")
    view.controls.layers.value = (3, 3)
    finished(view)
    assert "cannot change the logits" in view.message and view.result is None and view._classes.value == ""
    with pytest.raises(InputError, match="Vision Transformer"):
        cl.widgets.patch(small_black_box(), images)
    alone = cl.widgets.patch(model, images[0], cl.contrast(1, 2))
    alone.controls.put_in.value = "mean"
    finished(alone)
    assert "Add a photo" in alone.message and alone.settings.target.name == "white blank"
    alone.photos.source.file = ("notes.txt", b"text")
    assert "notes.txt" in alone.photos.source.problem
    photo = BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(photo, "png")
    alone.photos.source.file = ("red.png", photo.getvalue())
    finished(alone)
    assert alone.settings.source.name == "red.png" and alone.message == "" and alone.result is not None
    alone.close()


def test_other_weights_run_again(made: Any) -> None:
    model, images = build("vit"), made[1]
    photos, runs = photos_of(model, images), PatchRuns(model)
    point = next(point for point in points_of(model) if point.name == "resid_pre")
    settings = PatchSettings(photos[0], photos[1], point, (0, 1), (3,), (), (), "source", "evolve")
    before, _ = runs.logits(settings, photos, 1)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    after, patches = runs.logits(settings, photos, 1)
    assert not torch.equal(before.after, after.after)
    assert torch.allclose(after.after, model.run_patched(images[1:2], patches)[0], atol=1e-5)


def test_targets_of_every_kind(made: Any) -> None:
    model, images = made
    given = torch.randn(model.spec.d_model, generator=torch.Generator().manual_seed(0))
    for target, name in ((cl.direction(given, "furry"), "furry"), (lambda logits: logits[:, 0] - logits[:, 1], None)):
        view = cl.widgets.patch(model, images, target)
        view.controls.point.value = view.controls.named("pooled")
        finished(view)
        scores = view.result.scores
        assert view.message == "" and len(view.result.after) == model.n_classes
        assert scores["after"] == pytest.approx(scores["source"], abs=1e-5) != scores["before"]
        assert name is None or name in view._score.value
        view.close()
