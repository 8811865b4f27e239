"""`cl.widgets.explore` on models of all kinds, for targets of all kinds, and what it refuses."""

from typing import Any

import pytest
import torch
from timm.models.mlp_mixer import MlpMixer
from torch import nn

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.models.directions import direction
from caap_lab.models.targets import contrast
from caap_lab.widgets.background import Worker
from caap_lab.widgets.explore_view import Explorer, explore
from caap_lab.widgets.layer_sweep_view import layer_sweep
from helpers.widgets import finished


def captions(explorer: Explorer) -> list[str]:
    return [tile["caption"] for tile in explorer.board.tiles]


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
    assert "rollout" not in made.method_picker.options and made.board.modes == ["choose"]
    made.board.chosen = [0, 0]
    assert not made.message and "<table" in made._details.value and len(made.board.neighbours) == 9
    made.close()


def test_explore_a_mixer_by_default(scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """CAAP does not run on Mixers: the first method that does is shown instead."""
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: None)
    mixer = cl.HookedMixer(MlpMixer(img_size=64, patch_size=8, embed_dim=16, num_blocks=2, num_classes=3).eval())
    made = explore(mixer, scenes[0])
    assert made.methods == tuple(tile["key"] for tile in made.board.tiles[1:]) == made.method_picker.options[:1]
    assert made.board.neighbours == [] and "Click" not in made._details.value
    made.close()
    with pytest.raises(InputError, match=f"caap does not run on .*; these do: {made.methods[0]}, "):
        explore(mixer, scenes[0], methods="caap")


def test_explore_a_black_box(scenes: list[Any]) -> None:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    black_box = cl.BlackBoxModel(nn.Sequential(*layers), grid=(4, 8), image_size=64)
    made = explore(black_box, scenes[:2], methods=["grad_cam", "occlusion"])
    finished(made)
    assert {name: m.grid for name, m in made.maps.items()} == {"grad_cam": (15, 15), "occlusion": (4, 8)}
    assert made.board.neighbours == []  # nothing is inserted: there is no neighbourhood
    made.board.chosen = [1, 1]
    made.compare.kind.value = "photo"
    finished(made)
    made.difference.first.value, made.difference.second.value = "grad_cam", "occlusion"
    assert made.message.startswith("grad_cam has 15 x 15 scores and occlusion 4 x 8")
    assert "rollout" not in made.method_picker.options and made.to_figure().axes
    made.close()


def test_a_contrast_of_the_call_stays_at_hand(model: cl.HookedViT, scenes: list[Any]) -> None:
    made = explore(model, scenes, contrast(3, 5), ["caap", "libra_ixg_plus"])
    finished(made)
    assert made.target == contrast(3, 5) and made.target_box.given == made.target_box.value == "3 rather than 5"
    expected = cl.caap(model, scenes[0].image, contrast(3, 5))
    for line, m in zip(made.link.split("\n"), made.maps.values(), strict=True):
        again = eval(line, {"cl": cl, "model": model, "images": scenes})
        assert "target=cl.contrast(3, 5)" in line and torch.equal(again.scores, m.scores)
    assert torch.equal(made.maps["caap"].scores, expected.scores)
    share = torch.sigmoid(made._results.logits[0][3] - made._results.logits[0][5])
    assert captions(made)[:2] == [f"{made.photos[0].name}: 3 rather than 5 {share:.1%}", "caap for 3 rather than 5"]
    made.board.chosen = [2, 2]
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
    assert captions(made)[0].endswith(": striped") and made.link.startswith("cl.caap(model, image, target=target)")
    made.target_box.value = "4"  # from the same pass
    assert made.maps["caap"].target == 4
    finished(made)
    made.close()
