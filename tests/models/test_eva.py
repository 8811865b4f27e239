"""timm's Eva class: DINOv3, Perception Encoder, EVA-02, and ViTs with rotary positions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import HookedViT, InputError, Patch
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.token_subset import logits_of_subsets
from caap_lab.models.load import load_model
from helpers.models import random_images, randomise, timm_model
from helpers.timm_caap import timm_scores

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
    "qk_norm": lambda: timm_model(GAP, qk_norm=True, attn_type="rope", **SMALL),
    "mrope": lambda: timm_model(GAP, rope_type="mrope", rope_mrope_section=(1, 1, 2), **SMALL),
    "no_class_token": lambda: timm_model(GAP, num_reg_tokens=0, dynamic_img_size=True, **SMALL),
    "shared_keys": lambda: timm_model(
        "vit_base_patch16_sapiens2", num_heads=6, num_kv_heads=2, embed_dim=48, init_values=0.3, **SMALL
    ),
}
"""Between them: own biases, split and fused projections, q/k norm, SwiGLU and sub-LN, LayerScale, attention pooling,
registers, no class token, absolute and rotary positions, plain and of each block's own."""

BY_TRAIT = ("dinov3", "eva02_fused", "no_class_token", "shared_keys")
"""Those that the families of all tests do not stand for; the others are slow tests."""
KINDS = [pytest.param(kind, marks=() if kind in BY_TRAIT else pytest.mark.slow) for kind in EVA]


def build_eva(kind: str, dtype: torch.dtype = torch.float64) -> HookedViT:
    """A small random model."""
    return HookedViT(randomise(EVA[kind])).to(dtype)


def equals_timm(model: HookedViT, images: Tensor) -> bool:
    """Whether logits are bit-equal, with the fused kernel and with the explicit softmax."""
    found = []
    for fused in (True, False):
        for module in model.vit.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        with torch.no_grad():
            found.append(torch.equal(model(images), model.vit(images)))
    return all(found)


@pytest.mark.parametrize("kind", EVA)
def test_logits_are_bit_equal_to_timm(kind: str) -> None:
    model = build_eva(kind, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        model = model.to(dtype)
        assert equals_timm(model, random_images(model, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", timm.list_models(module="eva"))
def test_every_name_of_timms_is_bit_equal_or_refused(name: str) -> None:
    whole = timm.create_model(name, device="meta")
    heads = whole.blocks[0].attn.num_heads
    rows, columns = whole.patch_embed.patch_size
    small: dict[str, Any] = {"depth": 2, "img_size": (3 * rows, 4 * columns), "num_classes": 7}
    if whole.embed_dim > 1536:
        small["embed_dim"] = 8 * heads
    if "sapiens2" in name:
        small["num_kv_heads"] = (heads, min(block.attn.num_kv_heads for block in whole.blocks))
    if "enormous" in name:
        with pytest.raises(InputError, match="its norms follow attention and MLP"):
            HookedViT(timm.create_model(name, **small))
        return
    model = HookedViT(randomise(lambda: timm.create_model(name, **small)))
    assert equals_timm(model, random_images(model, 3))
    model = model.to(torch.bfloat16)
    assert equals_timm(model, random_images(model, 1))


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_caap_equals_patched_forward_passes_of_timms_own_blocks(kind: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = build_eva(kind, dtype)
        image, blank = random_images(model, 2, seed=1)
        cutoffs = (1, 2, model.n_layers) if dtype == torch.float64 else (2,)
        for context in ("free", "clamped"):
            for cutoff in cutoffs:
                found = cl.caap(model, image, 0, blank=blank, cutoff=cutoff, context=context).all_scores
                expected = timm_scores(model.vit, model.spec, image, blank, cutoff, context)
                assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("kind", ["dinov3", "mixed"])
def test_approximations_keep_positions(kind: str) -> None:
    model = build_eva(kind)
    # On the blank itself all rows are the blank's own, so that every approximation is exact.
    blank = random_images(model, 1, seed=3)
    with torch.no_grad():
        expected = model(blank)[0]
    for attention in ("exact", "cached"):
        for tail in ("exact", "shared", "interpolated"):
            found = cl.caap(model, blank, 0, blank=blank[0], cutoff=2, attention=attention, tail=tail).all_scores
            torch.testing.assert_close(found, expected.expand_as(found), atol=1e-9, rtol=0)


def test_a_subset_of_tokens_keeps_its_positions_with_explicit_softmax() -> None:
    model = build_eva("mixed")
    image, n_prefix = random_images(model, 1), model.spec.n_prefix
    keep = torch.rand(3, model.spec.n_patches, generator=torch.Generator().manual_seed(0)) > 0.5
    keep[2] = True
    with torch.no_grad():
        hooks = [(f"blocks.{layer}.attn.hook_pattern", lambda x, hook: None) for layer in range(model.n_layers)]
        with model.hooks(fwd_hooks=hooks):
            found = logits_of_subsets(model, model.embed(image)[0], keep)
        for logits, kept in zip(found, keep, strict=True):
            x, rope = model.vit._pos_embed(model.vit.patch_embed(image))
            x = torch.cat([x[:, :n_prefix], x[:, n_prefix:][:, kept]], dim=1)
            for layer, block in enumerate(model.vit.blocks):
                x = block(x, rope=rope[layer][:, kept])
            expected = model.vit.forward_head(model.vit.norm(x))[0]
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_libragrad_is_complete(kind: str) -> None:
    model = build_eva(kind)
    image = random_images(model, 1)
    with cl.libragrad(model):
        assert completeness_error(model, image, 1).max() < 1e-6


def test_a_gate_runs_and_is_refused_by_backward_rules() -> None:
    vit = EVA["qk_norm"]()
    for block in vit.blocks:
        block.attn.gate = nn.Linear(24, 24)
    model = HookedViT(randomise(lambda: vit))
    image = random_images(model, 1)
    assert equals_timm(model, image)
    for method in ("libra_ixg_plus", "transformer_attribution"):
        with pytest.raises(InputError, match="gated attention"):
            cl.attribute(model, image, method, 1)


def test_gradients_reach_frequencies_that_train() -> None:
    model = build_eva("mixed")
    images = random_images(model, 2)
    slopes = []
    for run in (model, model.vit, model):  # twice: no graph is kept from one run to the next
        loss = run(images).square().sum()
        slopes.append(torch.autograd.grad(loss, model.vit.rope.freqs)[0])
    assert slopes[0].abs().max() > 0
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], atol=1e-10, rtol=1e-10)
    model.vit.rope.freqs.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))


def test_rotations_are_never_stale() -> None:
    model = build_eva("mixed")
    images, rope = random_images(model, 1), model.vit.rope
    resid = model(images, stop_at_layer=1).detach()

    def check() -> None:
        for start in (resid, None):  # a run from block 1 on comes first, before images bring a new table
            with torch.no_grad():
                x = resid
                for layer, block in enumerate(model.vit.blocks[1:], start=1):
                    x = block(x, rope=rope.get_embed()[layer])
                expected = model.vit(images) if start is None else model.vit.forward_head(model.vit.norm(x))
                found = model(images) if start is None else model(start, start_at_layer=1)
            assert torch.equal(found, expected)

    check()
    with torch.no_grad():
        rope.freqs.mul_(1.5)
    check()
    rope.load_state_dict({"freqs": rope.freqs.detach() * 0.5}, assign=True)
    check()
    for scale in (1.1, 1.2):  # what stood in memory may be taken again by the second
        rope.freqs = nn.Parameter(rope.freqs.detach() * scale)
    check()
    rope.freqs.data.mul_(0.9)  # leaves no trace in the tensor's version
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))
    check()
    with torch.inference_mode():
        model(images)
    model(resid, start_at_layer=1).sum().backward()  # nothing is kept that only inference may read


def test_another_grid_is_seen() -> None:
    model = build_eva("mixed", torch.float32)
    images = random_images(model, 1)
    assert equals_timm(model, images)
    model.vit.set_input_size((32, 16))
    again = HookedViT(model.vit)
    assert equals_timm(again, random_images(again, 1))


def test_what_cannot_be_followed_is_refused() -> None:
    small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with pytest.raises(InputError, match="EvaBlockPostNorm: its norms follow"):
        HookedViT(Eva(**small, use_post_norm=True))
    with pytest.raises(InputError, match="no pooling"):
        HookedViT(Eva(**small, global_pool=""))
    model = HookedViT(Eva(**small, patch_drop_rate=0.5, use_rot_pos_emb=True))
    images = random_images(model, 1)
    assert equals_timm(model, images)
    model.train()
    with pytest.raises(InputError, match="drops patches or jitters"):
        model(images)


class Adapted(nn.Linear):
    """Stands for an adapter: its forward adds something to that of the layer whose weight it shows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sum(-1, keepdim=True)


def test_an_adapter_that_timm_does_not_run_is_refused_and_others_run() -> None:
    def adapt(model: HookedViT, name: str) -> None:
        for block in model.vit.blocks:
            old = getattr(block.attn, name)
            new = Adapted(old.in_features, old.out_features, bias=old.bias is not None).double().eval()
            new.load_state_dict(old.state_dict())
            setattr(block.attn, name, new)

    model = build_eva("dinov3")
    images = random_images(model, 1)
    adapt(model, "proj")
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))
    adapt(model, "qkv")
    with pytest.raises(InputError, match=r"replaces blocks\.0\.attn\.qkv but has no effect"):
        model(images)
    apart = build_eva("eva02")  # whose timm calls the layers
    before = apart(images)
    for name in ("q_proj", "k_proj", "v_proj"):
        adapt(apart, name)
    with torch.no_grad():
        assert torch.equal(apart(images), apart.vit(images)) and not torch.equal(apart(images), before)
    found = cl.caap(apart, images[0], 0, blank=images[0] * 0, cutoff=2).all_scores
    expected = timm_scores(apart.vit, apart.spec, images[0], images[0] * 0, 2, "clamped")
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


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
