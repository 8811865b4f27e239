"""`cl.widgets.explore` without a browser: what it shows is what the calls give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.mlp_mixer import MlpMixer
from torch import nn

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.errors import InputError
from caap_lab.models.directions import direction
from caap_lab.models.targets import contrast
from caap_lab.widgets import explore_view
from caap_lab.widgets.background import Worker
from caap_lab.widgets.explore_view import Explorer, explore
from caap_lab.widgets.layer_sweep_view import layer_sweep
from caap_lab.widgets.photos import photos_of
from helpers.widgets import finished, until


@pytest.fixture(scope="module")
def explorer(model: cl.HookedViT, scenes: list[Any]) -> Iterator[Explorer]:
    made = explore(model, scenes, methods=["caap", "rollout"])
    finished(made)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def as_at_first(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "explorer" in request.fixturenames:
        made: Explorer = request.getfixturevalue("explorer")
        made.photo.chosen, made.photo.box = [], []
        made.target_box.value, made.method_list.value, made.gallery.chosen = "", ("caap", "rollout"), 0
        finished(made)


def test_maps_are_those_of_the_calls_in_the_link(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.method_list.value = ("caap", "rollout", "libra_ixg_plus")
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    names = {"cl": cl, "model": model, "images": scenes}
    maps = [eval(line, names) for line in explorer.link.split("\n")]
    assert [m.method for m in maps] == list(explorer.maps) == ["caap", "rollout", "libra_ixg_plus"]
    for m, shown in zip(maps, explorer.maps.values(), strict=True):
        assert torch.equal(m.scores, shown.scores)
        assert m.target == shown.target or not METHODS[m.method].class_specific


def test_another_class_needs_no_second_pass_of_caap(explorer: Explorer, scenes: list[Any]) -> None:
    before = dict(explorer._maps)
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    assert explorer.maps["caap"].target == scenes[0].labels[0]
    assert dict(explorer._maps) == before


def test_patch_says_score_rank_and_classes(explorer: Explorer) -> None:
    m = explorer.maps["caap"]
    row, col = m.rank()[2]
    tip = explorer.overlays["caap"].tips[row * 8 + col]
    assert f"row {row}, column {col}: logit {m.scores[row, col].item():.4g}, rank 3 of 64" in tip
    best = m.all_scores[row, col].softmax(dim=0).topk(2)
    assert f"inserted alone: {best.indices[0]} {best.values[0]:.0%}, {best.indices[1]} {best.values[1]:.0%}" in tip
    explorer.photo.chosen = [row, col]
    assert explorer.overlays["rollout"].chosen == [row, col]
    assert f"{m.all_scores[row, col].max():.3f}" in explorer._details.value


def test_box_is_a_patched_run(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.overlays["caap"].box = [0, 0, 7, 7]
    finished(explorer)
    # With all patches inserted into the first five blocks, and the class token the blank's until then.
    source = model.record(scenes[0].image, names=["resid_pre"], layers=range(5))
    patch = cl.Patch("resid_pre", layers=range(5), tokens=cl.tokens.patches(), source=source)
    expected = model.run_patched(cl.blanks.blank_image(model, "white"), [patch])[0]
    assert torch.equal(explorer._box_logits[(0, 0, 0, 7, 7)], expected.detach())
    assert f"{expected.max():.3f}" in explorer._details.value


def test_wrong_class_is_said_in_the_widget(explorer: Explorer) -> None:
    explorer.target_box.value = "zebra"
    assert "There is no class &#x27;zebra&#x27;" in explorer._message.value
    explorer.target_box.value = ""
    assert explorer.message == ""


def test_error_of_a_method_is_said_in_the_widget(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any, images: Any, targets: Any) -> Any:
        raise ArithmeticError("no sum <b>today</b>")

    monkeypatch.setitem(METHODS, "broken", None)
    cl.register("broken", broken)
    explorer.method_list.options = (*explorer.method_list.options, "broken")
    explorer.method_list.value = ("caap", "broken")
    finished(explorer)
    until(lambda: bool(explorer.message))
    assert "ArithmeticError: no sum &lt;b&gt;today" in explorer._message.value
    assert list(explorer.maps) == ["caap"]  # what can be shown is shown


def test_figure_shows_what_the_widget_shows(explorer: Explorer) -> None:
    explorer.photo.chosen = [2, 3]
    titles = [ax.get_title() for ax in explorer.to_figure().axes]
    name = explorer.maps["caap"].target_name
    assert titles[:3] == ["demo: image 0", f"caap for '{name}'", "rollout, the same for every class"]
    assert explorer.overlays["rollout"].caption.startswith("rollout, the same for every class, colours ")


def test_uploads_that_are_no_images_get_a_sentence(explorer: Explorer, tmp_path: Path) -> None:
    count = len(explorer.photos)
    for name, content in (("a.pdf", b"%PDF-1.7"), ("b.png", b"\x89PNG\r\n\x1a\n broken"), ("c.jpg", b" ")):
        explorer.upload.set_trait("file", (name, content))
        assert explorer.message == f"{name} is not an image in a format that Pillow can read, or it is damaged."
    path = tmp_path / "thin.png"
    Image.new("RGB", (400, 2)).save(path)
    explorer.upload.set_trait("file", ("thin.png", path.read_bytes()))
    assert explorer.message.startswith("thin.png is 400 x 2 pixels, thinner than")
    assert len(explorer.photos) == count


def test_unfit_input_is_refused_before_anything_runs(model: cl.HookedViT, scenes: list[Any]) -> None:
    with pytest.raises(InputError, match="There is no method 'caaap'"):
        explore(model, scenes, methods="caaap")
    with pytest.raises(InputError, match="does not run on demo-cnn"):
        explore(cl.load_model("demo-cnn"), scenes, methods="rollout")
    with pytest.raises(InputError, match="There is no class"):
        explore(model, scenes, target="zebra")
    with pytest.raises(InputError, match="shows one image; 3 were given"):
        layer_sweep(model, [scene.image for scene in scenes])


def test_explore_a_cnn(scenes: list[Any]) -> None:
    made = explore(cl.load_model("demo-cnn"), scenes[0], methods=["caap", "grad_cam"])
    finished(made)
    assert list(made.maps) == ["caap", "grad_cam"]
    assert "rollout" not in made.method_list.options
    assert not made.message
    made.close()


def test_explore_a_mixer_without_a_choice(scenes: list[Any]) -> None:
    """Nothing chosen stands for CAAP where it runs, else for the first method that does."""
    mixer = MlpMixer(img_size=64, patch_size=8, embed_dim=16, num_blocks=2, num_classes=3).eval()
    made = explore(cl.HookedMixer(mixer), scenes[0], methods=["input_x_gradient"])
    made.method_list.value = ()
    finished(made)
    assert list(made.maps) == list(made.method_list.options[:1]) and not made.message
    made.close()


def test_explore_a_mixer_by_default(scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """CAAP does not run on Mixers: the first method that does is shown instead."""
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    mixer = cl.HookedMixer(MlpMixer(img_size=64, patch_size=8, embed_dim=16, num_blocks=2, num_classes=3).eval())
    made = explore(mixer, scenes[0])
    assert made.methods == tuple(made.overlays) == made.method_list.options[:1]
    made.close()
    with pytest.raises(InputError, match=f"caap does not run on .*; these do: {made.methods[0]}, "):
        explore(mixer, scenes[0], methods="caap")


def test_explore_a_black_box(scenes: list[Any]) -> None:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    black_box = cl.BlackBoxModel(nn.Sequential(*layers), grid=(4, 8), image_size=64)
    made = explore(black_box, scenes[0], methods=["grad_cam", "occlusion"])
    finished(made)
    assert {name: m.grid for name, m in made.maps.items()} == {"grad_cam": (15, 15), "occlusion": (4, 8)}
    assert "rollout" not in made.method_list.options and made.to_figure().axes and not made.message
    made.close()


def test_opacity_sends_no_picture_again(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser lays the map over the photo: only the trait changes, and the picture in the saved notebook."""
    shown = {name: picture.overlay for name, picture in explorer.overlays.items()}
    monkeypatch.setattr(explore_view, "png", lambda pixels: pytest.fail("a picture was encoded again"))
    monkeypatch.setattr(explore_view, "patch_tips", lambda *given: pytest.fail("texts were made again"))
    saved = []
    monkeypatch.setattr(explorer, "_leave_picture", lambda: saved.append(alphas(explorer)))
    monkeypatch.setattr(explorer, "_picture", object())  # as if it was displayed
    explorer.opacity.value = 0.25
    assert {name: picture.overlay for name, picture in explorer.overlays.items()} == shown
    assert [picture.opacity for picture in explorer.overlays.values()] == [0.25, 0.25]
    assert saved == [[0.25, 0.25]] and explorer.message == ""
    monkeypatch.undo()
    explorer.method_list.value = ("caap", "grad_cam")  # one more picture
    assert [picture.opacity for picture in explorer.overlays.values()] == [0.25, 0.25]
    explorer.opacity.value = 0.6


def alphas(explorer: Explorer) -> list[float]:
    """How opaque the maps of the figure are."""
    return [ax.images[1].get_alpha() for ax in explorer.to_figure().axes[1:3]]


def test_images_of_all_kinds(model: cl.HookedViT, scenes: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    scenes[0].image.save(path)
    forms: dict[str, Any] = {
        f"'{path}'": path,
        "image": scenes[0].image,
        "image.image": scenes[0],
        "images[0].image": scenes[:1],
        "images[0]": [scenes[0].image],
    }
    for call, images in forms.items():
        (photo,) = photos_of(model, images)
        assert photo.call == call
        assert np.array_equal(photo.pixels, np.asarray(scenes[0].image))
    data = cl.open_images(f"folder:{tmp_path}")
    assert [(photo.name, photo.call) for photo in photos_of(model, data)] == [("scene.png", "images[0].image")]


def test_a_contrast_of_the_call_stays_at_hand(model: cl.HookedViT, scenes: list[Any]) -> None:
    made = explore(model, scenes, contrast(3, 5), ["caap", "libra_ixg_plus"])
    finished(made)
    assert made.target == contrast(3, 5) and made.target_box.options[0] == made.target_box.value == "3 rather than 5"
    expected = cl.caap(model, scenes[0].image, contrast(3, 5))
    for line, m in zip(made.link.split("\n"), made.maps.values(), strict=True):
        again = eval(line, {"cl": cl, "model": model, "images": scenes})
        assert "target=cl.contrast(3, 5)" in line and torch.equal(again.scores, m.scores)
    assert torch.equal(made.maps["caap"].scores, expected.scores)
    assert "caap for 3 rather than 5" in made.overlays["caap"].caption
    share = torch.sigmoid(made._logits[0][3] - made._logits[0][5])
    assert made.photo.caption == f"{made.photos[0].name}: 3 rather than 5 {share:.1%}"
    made.photo.chosen = [2, 2]
    assert "<b>3: 3</b>" in made._details.value and "<i>5: 5</i>" in made._details.value
    assert "caap for 3 rather than 5" in [ax.get_title() for ax in made.to_figure().axes]
    made.target_box.value = "4"
    finished(made)
    assert made.target == 4 and made.maps["libra_ixg_plus"].target == 4
    made.target_box.value = "3 rather than 5"
    finished(made)
    assert made.target == contrast(3, 5) and list(made.maps) == ["caap", "libra_ixg_plus"]
    made.close()


def test_a_direction_of_the_call_needs_maps_of_its_own(model: cl.HookedViT, scenes: list[Any]) -> None:
    probe = direction(torch.randn(model.spec.d_model, generator=torch.Generator().manual_seed(0)), "striped")
    made = explore(model, scenes[0].image, probe, ["caap", "rollout"])
    finished(made)
    expected = cl.caap(model, scenes[0].image, probe)
    assert made.target is probe and torch.equal(made.maps["caap"].scores, expected.scores)
    assert made.photo.caption.endswith(": striped") and made.link.startswith("cl.caap(model, image, target=target)")
    made.target_box.value = "4"  # from the same pass
    assert made.maps["caap"].target == 4
    finished(made)
    made.close()
