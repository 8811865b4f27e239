"""timm's Eva class: DINOv3, Perception Encoder, EVA-02, and ViTs with rotary positions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from torch import Tensor

import caap_lab as cl
from caap_lab import HookedViT, InputError, Patch
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.token_subset import logits_of_subsets
from caap_lab.models.load import load_model
from helpers.models import random_images, randomise, timm_model
from helpers.plain_caap import plain_scores

ROPE = "vit_small_patch16_rope_mixed_224"
GAP = "vit_medium_patch16_rope_reg1_gap_256"
SMALL: dict[str, Any] = {"depth": 3, "img_size": (24, 32)}
EVA: dict[str, Callable[[], Any]] = {
    "dinov3": lambda: timm_model("vit_small_patch16_dinov3_qkvb", init_values=0.3, global_pool="token", **SMALL),
    "dinov3_average": lambda: timm_model("vit_small_plus_patch16_dinov3", init_values=0.3, **SMALL),
    "pe_core": lambda: timm_model("vit_pe_core_tiny_patch16_384", **SMALL),
    "pe_spatial": lambda: timm_model("vit_pe_spatial_tiny_patch16_512", init_values=0.3, **SMALL),
    "eva02": lambda: timm_model("eva02_base_patch14_448", **SMALL),
    "eva02_clip": lambda: timm_model("eva02_base_patch16_clip_224", **SMALL),
    "eva02_fused": lambda: timm_model("eva02_base_patch14_448", qkv_fused=True, scale_attn_inner=True, **SMALL),
    "packed_swiglu": lambda: timm_model("eva02_tiny_patch14_224", **SMALL),
    "mixed": lambda: timm_model("vit_small_patch16_rope_mixed_ape_224", **SMALL),
    "qk_norm_gated": lambda: timm_model(GAP, qk_norm=True, attn_type="rope", **SMALL),
    "no_class_token": lambda: timm_model(GAP, num_reg_tokens=0, dynamic_img_size=True, **SMALL),
    "shared_keys": lambda: timm_model(
        "vit_base_patch16_sapiens2", num_heads=6, num_kv_heads=2, embed_dim=48, init_values=0.3, **SMALL
    ),
}
"""Between them: own biases, split and fused projections, q/k norm, SwiGLU and sub-LN, LayerScale, attention pooling,
registers, no class token, absolute and rotary positions, plain and of each block's own."""

SOME = ["dinov3", "pe_core", "eva02_fused", "mixed", "no_class_token", "shared_keys"]


def build_eva(kind: str, dtype: torch.dtype = torch.float64) -> HookedViT:
    """A small random model."""
    return HookedViT(randomise(EVA[kind])).to(dtype)


def subset_logits(vit: Any, image: Tensor, kept: Tensor) -> Tensor:
    """timm's blocks on some tokens, with their own rows of the rotary table."""
    x, rope = vit._pos_embed(vit.patch_embed(image))
    patches = kept[vit.num_prefix_tokens :] - vit.num_prefix_tokens
    x = vit.norm_pre(x)[:, kept]
    for layer, block in enumerate(vit.blocks):
        x = block(x, rope=(rope[layer] if vit.rope_mixed else rope)[..., patches, :])
    return vit.forward_head(vit.norm(x))[0]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", EVA)
def test_logits_are_bit_equal_to_timm(kind: str, dtype: torch.dtype, fused: bool) -> None:
    model = build_eva(kind, dtype)
    for module in model.vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    images = random_images(model, 2)
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))


@pytest.mark.parametrize("kind", EVA)
def test_every_hook_point_is_recorded_and_moves_the_logits(kind: str) -> None:
    model = build_eva(kind)
    image = random_images(model, 1)
    plain = model(image)
    names = [name for name in model.hook_dict if name != "hook_logits"]
    store = model.record(image, names, progress=False)
    for name in names:
        assert store[name].shape[1:] == model.activation_shape(name)
        kept = model.run_patched(image, Patch(name, source=store))
        torch.testing.assert_close(kept, plain, atol=1e-10, rtol=0)
        noise = torch.randn(store[name].shape, generator=torch.Generator().manual_seed(1))
        moved = model.run_patched(image, Patch(name, source=store[name] + noise))
        assert (moved - plain).abs().max() > 1e-6, name


def test_queries_and_keys_are_read_behind_the_rotation() -> None:
    model = build_eva("mixed")
    attn = model.vit.blocks[1].attn
    _, cache = model.run_with_cache(random_images(model, 1))
    x = cache["blocks.1.ln1.hook_normalized"]
    rope = model.vit.rope.get_embed()[1]
    before = attn.q_proj(x) if attn.qkv is None else attn.qkv(x)[..., : attn.attn_dim]
    before = before.unflatten(-1, (attn.num_heads, -1))
    sin, cos = (part.transpose(0, 1) for part in rope.chunk(2, dim=-1))
    patches = before[:, 1:]
    turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    expected = torch.cat([before[:, :1], patches * cos + turned * sin], dim=1)
    torch.testing.assert_close(cache["blocks.1.attn.hook_q"], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("context", ["clamped", "free", "dropped", "frozen"])
@pytest.mark.parametrize("kind", SOME)
def test_caap_equals_the_plain_definition_in_all_contexts(kind: str, context: str) -> None:
    model = build_eva(kind)
    image = random_images(model, 1)[0]
    if context == "dropped" and not model.spec.live_prefix:
        with pytest.raises(InputError, match="no class token to remember"):
            cl.caap(model, image, 0, context=context)
        return
    for start, cutoff in ((0, 1), (0, 2), (1, model.n_layers)):
        found = cl.caap(model, image, 0, start=start, cutoff=cutoff, context=context).all_scores
        expected = plain_scores(model, image, start=start, cutoff=cutoff, context=context)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("attention", ["exact", "cached"])
@pytest.mark.parametrize("tail", ["exact", "shared", "interpolated"])
@pytest.mark.parametrize("kind", ["dinov3", "mixed"])
def test_approximations_keep_positions(kind: str, attention: str, tail: str) -> None:
    model = build_eva(kind)
    # On the blank itself all rows are the blank's own, so that every approximation is exact.
    blank = random_images(model, 1, seed=3)
    found = cl.caap(model, blank, 0, blank=blank[0], cutoff=2, attention=attention, tail=tail).all_scores
    with torch.no_grad():
        torch.testing.assert_close(found, model(blank)[0].expand_as(found), atol=1e-9, rtol=0)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("kind", ["dinov3", "eva02_fused", "mixed"])
def test_a_subset_of_tokens_keeps_its_positions(kind: str, explicit: bool) -> None:
    model = build_eva(kind)
    image, n_prefix = random_images(model, 1), model.spec.n_prefix
    keep = torch.rand(3, model.spec.n_patches, generator=torch.Generator().manual_seed(0)) > 0.5
    keep[2] = True
    with torch.no_grad():
        hooks = [(f"blocks.{layer}.attn.hook_pattern", lambda x, hook: None) for layer in range(model.n_layers)]
        with model.hooks(fwd_hooks=hooks if explicit else []):
            found = logits_of_subsets(model, model.embed(image)[0], keep)
        prefix = torch.arange(n_prefix)
        kept = [torch.cat([prefix, row.nonzero()[:, 0] + n_prefix]) for row in keep]
        expected = torch.stack([subset_logits(model.vit, image, row) for row in kept])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", EVA)
def test_libragrad_is_complete(kind: str) -> None:
    model = build_eva(kind)
    image = random_images(model, 1)
    with cl.libragrad(model):
        assert completeness_error(model, image, 1).max() < 1e-6


METHODS = ("ixg_plus", "libra_ixg_plus", "full_grad_plus", "transformer_attribution", "rise", "grad_cam", "tis")


@pytest.mark.parametrize("kind", ["dinov3", "pe_core", "eva02_fused", "mixed"])
def test_methods_run(kind: str) -> None:
    model = build_eva(kind, torch.float32)
    image = random_images(model, 1)
    for name in METHODS:
        options = {"rise": {"samples": 20}, "tis": {"clusters": 20}}.get(name, {})
        scores = cl.attribute(model, image, name, 1, **options).scores
        assert scores.isfinite().all() and scores.abs().max() > 0, name


def test_another_grid_or_other_frequencies_are_seen() -> None:
    model = build_eva("mixed")
    images = random_images(model, 1)
    with torch.no_grad():
        before = model(images)
        model.vit.rope.freqs.mul_(1.5)
        assert torch.equal(model(images), model.vit(images)) and not torch.equal(model(images), before)
        model = model.to(torch.float32)
        assert torch.equal(model(images.float()), model.vit(images.float()))
        model.vit.set_input_size((32, 16))
        again = HookedViT(model.vit)
        images = random_images(again, 1)
        assert torch.equal(again(images), model.vit(images))


def test_what_cannot_be_followed_is_refused() -> None:
    small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with pytest.raises(InputError, match="EvaBlockPostNorm: its norms stand behind"):
        HookedViT(Eva(**small, use_post_norm=True))
    with pytest.raises(InputError, match="no pooling"):
        HookedViT(Eva(**small, global_pool=""))
    model = HookedViT(Eva(**small, patch_drop_rate=0.5, use_rot_pos_emb=True))
    images = random_images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))
    model.train()
    with pytest.raises(InputError, match="drops patches or shakes"):
        model(images)


def test_models_load_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_dinov3_qkvb", num_classes=5).eval()
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    model = load_model("vit_tiny_patch16_dinov3_qkvb", checkpoint=tmp_path / "model.safetensors", image_size=64)
    vit.set_input_size((64, 64))
    images = random_images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(images), vit(images))
    names = cl.list_models()
    assert "vit_base_patch16_dinov3" in names and "eva02_enormous_patch14_clip_224" not in names
