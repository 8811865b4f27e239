"""Heads from files: ordinary, DINOv2's two, zero-shot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import caap_lab as cl
from caap_lab import CheckpointError, HookedViT, InputError
from caap_lab.models.heads import read_head
from helpers.models import TINY, build, random_images, timm_model

WIDTH = TINY["embed_dim"]


@pytest.fixture
def linear(tmp_path: Path):
    def write(width: int, classes: int = 5, prefix: str = "", suffix: str = ".safetensors") -> Path:
        state = {f"{prefix}weight": torch.randn(classes, width), f"{prefix}bias": torch.randn(classes)}
        path = tmp_path / f"head{suffix}"
        torch.save(state, path) if suffix == ".pth" else save_file(state, path)
        return path

    return write


@pytest.mark.parametrize("prefix, suffix", [("", ".pth"), ("linear.", ".pth"), ("head.", ".safetensors")])
def test_ordinary_head_goes_into_the_timm_model(linear, prefix: str, suffix: str) -> None:
    vit = timm_model("vit_base_patch16_224", num_classes=0)
    head, names = read_head(linear(WIDTH, prefix=prefix, suffix=suffix), vit)
    assert head is None and names is None
    model = HookedViT(vit)
    assert model.n_classes == 5 and model(random_images(model, 2)).shape == (2, 5)


@pytest.mark.parametrize("blocks", [1, 4])
def test_dinov2_heads(linear, blocks: int) -> None:
    vit = timm_model("vit_base_patch14_reg4_dinov2")
    path = linear((blocks + 1) * WIDTH, suffix=".pth")
    head, _ = read_head(path, vit)
    model = HookedViT(vit, head=head)
    images = random_images(model, 2)
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        layers = model.vit.get_intermediate_layers(images, n=blocks, return_prefix_tokens=True, norm=True)
        features = torch.cat([*(prefix[:, 0] for _, prefix in layers), layers[-1][0].mean(dim=1)], dim=-1)
        expected = F.linear(features, state["weight"], state["bias"])
        assert (model(images) - expected).abs().max() < 1e-5
    assert model.spec.pool == "cls+mean" and model.spec.reads_patches


def test_zero_shot_head_is_a_scaled_cosine(tmp_path: Path) -> None:
    texts = torch.randn(3, 7)
    path = tmp_path / "texts.safetensors"
    cl.save_zero_shot_head(path, texts, ["a photo of a cat", "a photo of a dog", "grass"], logit_scale=50.0)
    vit = timm_model("vit_base_patch16_clip_quickgelu_224")
    head, names = read_head(path, vit)
    model = HookedViT(vit, head=head, class_names=names)
    images = random_images(model, 2)
    with torch.no_grad():
        expected = 50 * F.cosine_similarity(vit(images)[:, None], texts[None], dim=-1)
        assert (model(images) - expected).abs().max() < 1e-4
    found = cl.caap(model, images[0], "a photo of a dog")
    assert found.target == cl.contrast(1) and found.target_class == 1 and found.all_scores.shape == (4, 4, 3)
    before = model.fingerprint
    with torch.no_grad():
        model.head.text_embeddings[0] += 1
    assert model.fingerprint != before


PROMPTS = ("a photo of a cat", "a photo of a dog", "a photo of grass")


def prompts(width: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {prompt: torch.randn(width, generator=generator) for prompt in PROMPTS}


def test_prompts_are_classes_of_a_model_that_shares_its_weights() -> None:
    tower = build("clip")
    images = random_images(tower, 2)
    with torch.no_grad():
        embedding = tower(images)
        model = tower.with_prompts(prompts(), logit_scale=50.0)
        texts = torch.stack(list(prompts().values()))
        expected = 50 * F.cosine_similarity(embedding[:, None], texts[None], dim=-1)
        assert (model(images) - expected).abs().max() < 1e-4
        assert torch.equal(tower(images), embedding) and tower.head is None
    assert model.vit is tower.vit and model.hook_logits is not tower.hook_logits
    assert model.class_names.names == PROMPTS and model.model_name == tower.model_name
    assert model.fingerprint not in (tower.fingerprint, tower.with_prompts(prompts()).fingerprint)
    more = model.with_prompts({"a tree": texts[0]})  # from other prompts as from none
    assert more.n_classes == 1 and model.n_classes == 3
    half = build("clip").to(torch.float64).with_prompts(prompts())
    assert half.head.text_embeddings.dtype == half(images.double()).dtype == torch.float64


@pytest.mark.parametrize("name", ["caap", "libra_ixg_plus", "full_grad_plus", "grad_cam", "simple_insertion", "rise"])
def test_a_prompt_is_a_target_for_every_method(name: str) -> None:
    model = build("clip").with_prompts(prompts())
    (image,) = random_images(model, 1)
    options = {"samples": 20} if name == "rise" else {}
    cat, dog, grass = (cl.attribute(model, image, name, prompt, **options) for prompt in (PROMPTS[0], "dog", 2))
    assert (dog.target_class, grass.target) == (1, cl.contrast(2))
    assert dog.target_name == dog.caption == "a photo of a dog against the mean of all classes"
    assert not torch.allclose(cat.scores, dog.scores)


@pytest.mark.parametrize("family", ["clip", "siglip", "average_pool"])
def test_libra_gradients_are_complete_behind_prompts(family: str) -> None:
    model = build(family).with_prompts(prompts())
    images = random_images(model, 2)
    with cl.libragrad(model):
        assert cl.completeness_error(model, images, progress=False).max() < 1e-3
    assert cl.completeness_error(model, images, progress=False).amin(1).max() > 0.05


def test_libragrad_holds_the_norm_of_the_embedding_constant() -> None:
    model = build("clip", torch.float64).with_prompts(prompts())
    features = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    with cl.libragrad(model):
        (found,) = torch.autograd.grad(model.head(features)[:, 1].sum(), features)
    unit = F.normalize(prompts()[PROMPTS[1]], dim=0).double()
    expected = 100 * unit / features.detach().norm(dim=1, keepdim=True)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()  # texts are normalised in float32
    (plain,) = torch.autograd.grad(model.head(features)[:, 1].sum(), features)
    assert (plain * features).sum().abs() < 1e-10  # scaling an embedding changes no cosine


WRONG_PROMPTS = [
    ({}, "Give prompts with their text embeddings"),
    ([torch.randn(7)], "Give prompts with their text embeddings"),
    ({"cat": torch.randn(9)}, r"'cat' is torch.float32 \[9\]; this model's image embedding has 7 values"),
    ({"cat": torch.randn(1, 7)}, r"floating-point tensor \[7\]"),
    ({"cat": torch.ones(7, dtype=torch.long)}, r"'cat' is torch.int64 \[7\]"),
    ({"cat": [0.1] * 7}, "'cat' is list"),
    ({"cat": torch.zeros(7)}, "'cat' is zero, or holds NaN"),
    ({"cat": torch.full((7,), torch.nan)}, "'cat' is zero, or holds NaN"),
    ({1: torch.randn(7)}, "must be a list of strings"),
]


@pytest.mark.parametrize("given, message", WRONG_PROMPTS, ids=[message for _, message in WRONG_PROMPTS])
def test_prompts_that_do_not_fit(given, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("clip").with_prompts(given)


def test_head_by_load_model(tmp_path: Path, linear) -> None:
    torch.manual_seed(0)
    import timm

    checkpoint = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), checkpoint)
    model = cl.load_model("vit_tiny_patch16_224", checkpoint=checkpoint, head=linear(2 * 192))
    assert model.n_classes == 5 and model.class_layers == 1
    headless = cl.load_model("vit_tiny_patch16_224", checkpoint=checkpoint)
    with pytest.raises(InputError, match="has no classifier"):
        cl.caap(headless, torch.zeros(3, 224, 224))


def test_heads_that_do_not_fit(tmp_path: Path, linear) -> None:
    vit = timm_model("vit_base_patch16_224")
    with pytest.raises(CheckpointError, match=r"reads 100 features; this model has 24"):
        read_head(linear(100), vit)
    with pytest.raises(CheckpointError, match="needs a model with a class token"):
        read_head(linear(2 * WIDTH), timm_model("vit_base_patch16_gap_224"))
    path = tmp_path / "other.safetensors"
    save_file({"blocks.0.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match="is not a head"):
        read_head(path, vit)
    cl.save_zero_shot_head(path, torch.randn(3, 9), ["a", "b", "c"])
    with pytest.raises(CheckpointError, match=r"must be \[classes, 7\]"):
        read_head(path, vit)
    with pytest.raises(InputError, match="1 names were given for 3 text embeddings"):
        cl.save_zero_shot_head(path, torch.randn(3, 9), ["a"])
    with pytest.raises(InputError, match="2 class names were given for a head of 7"):
        HookedViT(build("vit").vit, class_names=["a", "b"])
