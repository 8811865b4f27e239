"""The bundled backbones: what their cards say, how well they answer, and whether CAAP finds what they look at."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from timm.layers import LayerScale
from timm.layers.activations import QuickGELU

from caap_lab.models.bundled import BACKBONES
from caap_lab.models.load import BUNDLED, bundled_models
from caap_lab.training import recipes, weights
from experiments.demo_world import answers, cue_found, discrimination, pointing

VITS = ("demo", "demo-clip", "demo-dinov2", "demo-deit3", "demo-spurious")
QUICK = ("demo", "demo-dinov2", "demo-cnn")
"""One of each way to the answer: class token, that and the mean over patches, feature maps."""


def measured(names: Iterable[str]) -> list:
    """Backbones for `pytest.mark.parametrize`; measuring those that add no way to the answer is slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def card_of(name: str) -> dict:
    return json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))


def test_every_backbone_is_bundled_and_small() -> None:
    assert sorted(bundled_models()) == sorted(BACKBONES) == sorted([*VITS, "demo-cnn"])
    for name in BACKBONES:
        assert (BUNDLED / f"{name}.safetensors").stat().st_size <= 2_000_000
    package = sum(path.stat().st_size for path in BUNDLED.parent.rglob("*") if "__pycache__" not in path.parts)
    assert package < 15_000_000


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_card_is_that_of_the_training_script(name: str) -> None:
    """The weights are the output of today's recipe; a change to it asks for a new training."""
    card, backbone = card_of(name), BACKBONES[name]
    assert card["recipe"] == asdict(recipes.RECIPES[name])
    assert (card["seed"], card["steps"]) == (recipes.RECIPES[name].seed, recipes.RECIPES[name].steps)
    assert card["command"] == f"python -m caap_lab.training.train {name} --out caap_lab/models/weights"
    assert card["architecture"] == backbone.architecture and card["head"] == backbone.head
    assert card["architecture_kwargs"] == json.loads(json.dumps(backbone.arguments))
    assert card["accuracy"]["scenes"] == 2000 and card["accuracy"]["split"] == "test"
    assert card["accuracy"]["value"] >= 0.95
    assert card["data"].startswith(weights.DATA_DESCRIPTION)


@pytest.mark.parametrize("name", measured(BACKBONES))
def test_unseen_scenes_are_named_rightly(name: str) -> None:
    """500 of the 2,000 scenes on the card."""
    model = cl.load_model(name)
    with torch.no_grad():
        found = weights.accuracy(model, n=500, seed=card_of(name)["accuracy"]["seed"])
    assert found >= 0.95
    assert abs(found - card_of(name)["accuracy"]["value"]) < 0.02


def test_each_backbone_has_the_traits_of_its_family() -> None:
    models = {name: cl.load_model(name) for name in VITS}
    for model in models.values():
        assert model.spec.grid == (8, 8) and model.n_layers == 8 and model.spec.prefix == ("cls",)
        assert not model.training and model.class_names.name(7) == "7"
    clip = models["demo-clip"].vit
    assert isinstance(clip.norm_pre, torch.nn.LayerNorm) and isinstance(clip.blocks[0].mlp.act, QuickGELU)
    dinov2 = models["demo-dinov2"]
    assert dinov2.spec.pool == "cls+mean" and dinov2.spec.reads_patches
    assert isinstance(dinov2.vit.blocks[3].ls1, LayerScale) and isinstance(
        models["demo-deit3"].vit.blocks[3].ls2, LayerScale
    )
    assert models["demo-deit3"].vit.pos_embed.shape[1] == 64 and models["demo"].vit.pos_embed.shape[1] == 65
    prints = {model.fingerprint for model in models.values()}
    assert len(prints) == len(VITS)


@pytest.mark.parametrize("name", measured(VITS))
def test_caap_points_at_the_object(name: str) -> None:
    model = cl.load_model(name)
    hits, chance = pointing(model, "single", 150, "white")
    assert len(hits) > 130
    assert np.mean(hits) >= 0.8 > 3 * np.mean(chance)


@pytest.mark.parametrize("name", measured(["demo", "demo-clip", "demo-dinov2", "demo-deit3"]))
def test_caap_points_at_the_object_of_the_asked_class(name: str) -> None:
    asked, other = discrimination(cl.load_model(name), 80, "white")
    assert np.mean(asked) > 2 * np.mean(other)


@pytest.mark.parametrize("neighbourhood", ["none", "box1"])
def test_caap_finds_the_planted_cue(neighbourhood: str) -> None:
    share, hits, chance = cue_found(cl.load_model("demo-spurious"), 80, "white", neighbourhood)
    assert share > 0.9
    assert np.mean(hits) >= 0.9 > 3 * np.mean(chance)


def test_the_plain_model_hardly_minds_the_cue() -> None:
    scenes = cl.demo_images("spurious", 80, seed=1)
    guesses = answers(cl.load_model("demo"), scenes)
    assert np.mean([guess == scene.label for guess, scene in zip(guesses, scenes, strict=True)]) > 0.8


def test_other_sizes_weights_and_heads(tmp_path: Path) -> None:
    assert cl.load_model("demo-dinov2", image_size=48).spec.grid == (6, 6)
    plain = BUNDLED / "demo.safetensors"
    with pytest.raises(cl.CheckpointError, match=r"demo\.safetensors"):
        cl.load_model("demo-deit3", checkpoint=plain)
    other = cl.load_model("demo", checkpoint=BUNDLED / "demo-spurious.safetensors")
    assert torch.equal(other.vit.head.weight, cl.load_model("demo-spurious").vit.head.weight)
    texts = tmp_path / "texts.safetensors"
    cl.save_zero_shot_head(texts, torch.eye(10)[:3], ["a", "b", "c"])
    assert cl.load_model("demo-clip", head=texts).n_classes == 3
