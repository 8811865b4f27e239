"""Real ImageNet weights and photos: what random weights cannot show. Skipped where they are not at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
import timm

from caap_lab import cli
from helpers.models import HookedViT
from helpers.plain_caap import plain_scores


def spearman(a: cl.AttributionMap, b: cl.AttributionMap) -> float:
    return float(spearmanr(a.scores.flatten(), b.scores.flatten()).statistic)


@pytest.mark.slow
def test_clamped_and_free_rank_patches_alike(deit_tiny: HookedViT, photos: list[Path]) -> None:
    found = []
    for photo in photos[::32]:
        clamped = cl.caap(deit_tiny, photo, cutoff=8)
        found.append(spearman(clamped, cl.caap(deit_tiny, photo, clamped.target, cutoff=8, context="free")))
    assert len(found) == 4 and np.mean(found) >= 0.97


def test_approximations_rank_patches_like_exact(deit_tiny: HookedViT, photos: list[Path]) -> None:
    lowest = {
        ("cached", "exact"): 0.96,
        ("cached_all", "exact"): 0.96,
        ("exact", "interpolated"): 0.995,
        ("exact", "shared"): 0.95,
    }
    found: dict[tuple[str, str], list[float]] = {pair: [] for pair in lowest}
    for photo in photos[::32]:
        exact = cl.caap(deit_tiny, photo, cutoff=8)
        for attention, tail in lowest:
            other = cl.caap(deit_tiny, photo, exact.target, attention=attention, tail=tail)
            found[attention, tail].append(spearman(exact, other))
    for pair, bound in lowest.items():
        assert len(found[pair]) == 4 and np.mean(found[pair]) >= bound, pair


def test_engine_equals_plain_definition_on_a_photo(deit_tiny: HookedViT, photos: list[Path]) -> None:
    image = deit_tiny.preprocess(photos[5])
    found = cl.caap(deit_tiny, image, 0, cutoff=8).all_scores
    expected = plain_scores(deit_tiny, image, cutoff=8, step=3)
    assert (found[::3, ::3] - expected).abs().max() / expected.abs().max() < 1e-5


def test_maps_of_photos_lie_on_their_objects(deit_tiny: HookedViT, shared: Path) -> None:
    folder = shared / "images" / "segmented" / "ecssd"
    inside = []
    for photo in sorted((folder / "images").iterdir())[::12]:
        mask_path = folder / "masks" / f"{photo.stem}.png"
        mask = deit_tiny.preprocessing.mask(Image.open(mask_path).convert("L"))
        scores = cl.caap(deit_tiny, photo).upsample(mode="nearest-exact")
        inside.append(bool(scores[mask].mean() > scores[~mask].mean()))
    assert len(inside) >= 6 and np.mean(inside) >= 0.85


def test_command_line_on_a_photo(shared: Path, photos: list[Path], tmp_path: Path, capsys) -> None:
    weights = shared / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k" / "model.safetensors"
    (lion,) = [p for p in photos if "lion" in p.name and "sea" not in p.name]
    arguments = ["map", str(lion), "--model", "vit_tiny_patch16_224", "--checkpoint", str(weights)]
    assert cli.main([*arguments, "--target", "lion", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["target"] == 291 and result["predictions"][0]["name"] == "lion"
    assert Path(result["overlay"]).exists() and Path(result["scores"]).exists()
    assert cli.main([*arguments, "--target", "cat", "--out", str(tmp_path)]) == 2
    assert "tabby" in capsys.readouterr().err


def test_class_specific_maps_lie_on_the_asked_object_of_two(deit_tiny: HookedViT, shared: Path) -> None:
    from experiments.pairs import discrimination, two_objects

    images = cl.open_images(f"masks:{shared / 'images' / 'segmented' / 'coco-multi'}")
    pairs = [pair for sample in images if (pair := two_objects(deit_tiny, sample)) is not None]
    assert len(pairs) >= 15
    for method in ("caap", "libra_ixg_plus"):
        areas = np.array([area for pair in pairs[::2] for area in discrimination(deit_tiny, method, *pair)])
        assert areas.mean() > 0.6 and (areas > 0.5).mean() > 0.6, (method, areas.mean())


@pytest.mark.slow  # what the test above says of two objects, by deletion
def test_deleting_what_a_map_calls_important_hurts_its_own_class_most(deit_tiny: HookedViT, shared: Path) -> None:
    folder = shared / "images" / "multi-object"
    about = json.loads((folder / "labels.json").read_text())
    gaps = []
    for name, facts in about.items():
        image = deit_tiny.preprocess(folder / name)
        with torch.no_grad():
            logits = deit_tiny(image)[0]
        pair = [max(group, key=lambda label: float(logits[label])) for group in facts["class_groups"][:2]]
        maps = [cl.caap(deit_tiny, image, label) for label in pair]
        for m, label, other in zip(maps, pair, pair[::-1], strict=True):
            highest = m.upsample(mode="nearest-exact").flatten().argsort(descending=True, stable=True)[: 224 * 224 // 5]
            changed = image.clone().flatten(2)
            changed[..., highest] = 0
            with torch.no_grad():
                fall = logits - deit_tiny(changed.reshape(image.shape))[0]
            gaps.append(float(fall[label] - fall[other]))
    assert len(gaps) >= 20 and np.mean(gaps) > 0 and np.mean(np.array(gaps) > 0) > 0.7


@pytest.fixture(scope="module")
def efficientnet(shared: Path) -> cl.BlackBoxModel:
    """EfficientNet-Lite0 with real ImageNet weights, as a black box."""
    folder = shared / "weights" / "tf_efficientnet_lite0.in1k"
    about = json.loads((folder / "meta.json").read_text())
    net = timm.create_model(about["timm_model"])
    net.load_state_dict(load_file(folder / "model.safetensors"))
    preprocessing = cl.Preprocessing((224, 224), about["mean"], about["std"], crop_pct=224 / 256)
    return cl.BlackBoxModel(net.float(), grid=(14, 14), preprocessing=preprocessing)


def right_answers(model: cl.BlackBoxModel, photos: list[Path]) -> float:
    with torch.no_grad():
        answers = [int(model(photo)[0].argmax()) for photo in photos]
    return float(
        np.mean([answer == model.target(photo.name[:9]) for answer, photo in zip(answers, photos, strict=True)])
    )


def test_a_black_box_classifies_photos_and_points_at_the_object(
    efficientnet: cl.BlackBoxModel, photos: list[Path]
) -> None:
    assert right_answers(efficientnet, photos[::8]) >= 0.75
    (goldfinch,) = [photo for photo in photos if "goldfinch" in photo.name]
    m = cl.attribute(efficientnet, goldfinch, "grad_cam")
    assert m.target_name == "goldfinch" and m.grid == (7, 7) and m.settings == {"layer": "bn2"}
    assert cl.insertion_deletion(efficientnet, goldfinch, m, protocol="rise-28").insdel > 0.4


@pytest.mark.slow
def test_maps_of_a_black_box_lie_on_their_objects(efficientnet: cl.BlackBoxModel, shared: Path) -> None:
    assert right_answers(efficientnet, sorted((shared / "images" / "imagenet-samples").glob("*.JPEG"))) >= 0.88
    coarse = cl.BlackBoxModel(efficientnet.black_box, grid=(7, 7), preprocessing=efficientnet.preprocessing)
    folder = shared / "images" / "segmented" / "ecssd"
    areas: dict[str, list[float]] = {"grad_cam": [], "rise": [], "simple_insertion": []}
    for photo in sorted((folder / "images").iterdir())[::20]:
        mask = coarse.preprocessing.mask(Image.open(folder / "masks" / f"{photo.stem}.png").convert("L"))
        for name, found in areas.items():
            m = cl.attribute(coarse, photo, name, **({"samples": 200} if name == "rise" else {}))
            found.append(roc_auc_score(mask.flatten(), m.upsample().flatten()))
    means = {name: np.mean(found) for name, found in areas.items()}
    assert means["grad_cam"] > 0.8 and means["simple_insertion"] > 0.8 and means["rise"] > 0.55, areas


@pytest.fixture(scope="module")
def clip(shared: Path) -> HookedViT:
    """CLIP ViT-B/16 with ImageNet's class names as prompts; its linear weights were stored in int8."""
    folder = shared / "weights" / "vit_base_patch16_clip_quickgelu_224.openai-int8"
    state = load_file(folder / "model.safetensors")
    scales = {name: state.pop(f"{name}_scale")[:, None] for name in list(state) if f"{name}_scale" in state}
    vit = timm.create_model("vit_base_patch16_clip_quickgelu_224.openai", pretrained=False)
    vit.load_state_dict({name: value.float() * scales.get(name, 1) for name, value in state.items()})
    texts = load_file(folder / "zero_shot_heads.safetensors")["imagenet_a_photo_of_a"].float()
    return HookedViT(vit).with_prompts({f"{index}": text for index, text in enumerate(texts)})


@pytest.mark.slow
def test_contrasts_of_texts_find_objects_better_than_their_own_logits(clip: HookedViT, shared: Path) -> None:
    photos = cl.open_images(f"masks:{shared / 'images/segmented/ecssd'}").sample(3, seed=0)
    found = []
    for photo in photos:
        (mask,) = photo.regions.masks.values()
        seen = clip.preprocessing.mask(mask)
        contrast = cl.attribute(clip, photo.image, "grad_cam")
        assert contrast.target == cl.contrast(contrast.target_class)
        assert contrast.caption == f"{contrast.target_class} against the mean of all classes"
        own = cl.attribute(clip, photo.image, "grad_cam", cl.logit(contrast.target_class))
        found.append([cl.localisation(m, seen).aupr1 for m in (own, contrast)])
    own, contrast = np.mean(found, axis=0)
    assert contrast > own + 0.2
