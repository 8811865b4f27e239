"""timm's Beit class: BEiT and BEiT v2, with relative positions of each block's own or shared by all."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit
from torch import Tensor

import caap_lab as cl
from caap_lab import CheckpointError, HookedViT, InputError, Patch
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.token_subset import logits_of_subsets
from caap_lab.models.checkpoint import load_into
from caap_lab.models.load import load_model
from helpers.beits import beit_logits_of_subset
from helpers.models import random_images, randomise, timm_model
from helpers.plain_caap import plain_scores
from helpers.timm_caap import timm_scores

NAME = "beit_base_patch16_224"
SMALL: dict[str, Any] = {"depth": 3, "img_size": (24, 32)}
SHARED: dict[str, Any] = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True}
BEIT: dict[str, Callable[[], Any]] = {
    "beit": lambda: timm_model(NAME, init_values=0.3, **SMALL),
    "shared": lambda: timm_model(NAME, init_values=None, global_pool="token", **SHARED, **SMALL),
    "own_and_shared": lambda: timm_model("beitv2_base_patch16_224", use_shared_rel_pos_bias=True, **SMALL),
    "gated": lambda: timm_model(NAME, swiglu_mlp=True, scale_mlp=True, qkv_bias=False, **SMALL),
    "absolute": lambda: timm_model(NAME, use_rel_pos_bias=False, use_abs_pos_emb=True, use_fc_norm=False, **SMALL),
}
"""Between them: tables of each block's own, shared, both or none; absolute positions; biases of queries and values;
LayerScale; gated MLPs with a norm inside; class token or mean of patches; the final norm before the pooling or
behind."""


def build_beit(kind: str, dtype: torch.dtype = torch.float64) -> HookedViT:
    """A small random model."""
    return HookedViT(randomise(BEIT[kind])).to(dtype)


def resize(vit: Any, size: tuple[int, int]) -> None:
    """timm's own resampling of the tables, at which torch warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vit.set_input_size(size)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", BEIT)
def test_logits_are_bit_equal_to_timm(kind: str, dtype: torch.dtype, fused: bool) -> None:
    model = build_beit(kind, dtype)
    for module in model.vit.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    images = random_images(model, 2)
    assert torch.equal(model(images), model.vit(images))  # with gradients to the table, which changes torch's kernel
    with torch.no_grad():
        assert torch.equal(model(images), model.vit(images))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BEIT)
def test_every_hook_point_is_recorded_and_moves_the_logits(kind: str) -> None:
    model = build_beit(kind)
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


def test_positions_are_in_the_scores() -> None:
    model = build_beit("own_and_shared")
    attn, shared = model.vit.blocks[1].attn, model.vit.rel_pos_bias
    _, cache = model.run_with_cache(random_images(model, 1))
    q, k = (cache[f"blocks.1.attn.hook_{name}"].transpose(1, 2) for name in "qk")
    expected = q @ k.mT * attn.scale + attn._get_rel_pos_bias() + shared()
    torch.testing.assert_close(cache["blocks.1.attn.hook_attn_scores"], expected, atol=1e-12, rtol=0)
    rows, cols = model.grid
    bias = expected - q @ k.mT * attn.scale
    a, b = (
        1,
        1 + cols + 1,
    )  # two pairs of tokens of equal offset, (1, 0), and the two ways between class token and patch
    torch.testing.assert_close(bias[..., a, a + cols], bias[..., b, b + cols])
    assert not torch.allclose(bias[..., a, a + cols], bias[..., a + cols, a]) and (rows, cols) == (3, 4)
    assert not torch.allclose(bias[..., 0, 1], bias[..., 1, 0])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("beit", torch.float32),
        ("own_and_shared", torch.float64),
        *(pytest.param(kind, torch.float64, marks=pytest.mark.slow) for kind in BEIT if kind != "own_and_shared"),
    ],
)
def test_caap_equals_patched_forwards_of_timm(kind: str, dtype: torch.dtype) -> None:
    model = build_beit(kind, dtype)
    image, blank = random_images(model, 2)
    for context in ("free", "clamped"):
        for cutoff in (1, 2, model.n_layers):
            found = cl.caap(model, image, 0, blank=blank, cutoff=cutoff, context=context).all_scores
            expected = timm_scores(model.vit, model.spec, image, blank, cutoff, context)
            tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype] * float(expected.abs().max())
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["clamped", "free", "dropped", "frozen"])
@pytest.mark.parametrize("kind", BEIT)
def test_caap_equals_the_plain_definition_in_all_contexts(kind: str, context: str) -> None:
    model = build_beit(kind)
    image = random_images(model, 1)[0]
    for start, cutoff in ((0, 1), (1, model.n_layers)):
        found = cl.caap(model, image, 0, start=start, cutoff=cutoff, context=context).all_scores
        expected = plain_scores(model, image, start=start, cutoff=cutoff, context=context)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", ["exact", "cached"])
@pytest.mark.parametrize("tail", ["exact", "shared", "interpolated"])
def test_approximations_keep_positions(attention: str, tail: str) -> None:
    model = build_beit("own_and_shared")
    # On the blank itself all rows are the blank's own, so that every approximation is exact.
    blank = random_images(model, 1, seed=3)
    found = cl.caap(model, blank, 0, blank=blank[0], cutoff=2, attention=attention, tail=tail).all_scores
    with torch.no_grad():
        torch.testing.assert_close(found, model(blank)[0].expand_as(found), atol=1e-10, rtol=0)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("kind", ["beit", "own_and_shared", "absolute"])
def test_a_subset_of_tokens_keeps_its_rows_of_the_table(kind: str, explicit: bool) -> None:
    model = build_beit(kind)
    image = random_images(model, 1)
    keep = torch.rand(3, model.spec.n_patches, generator=torch.Generator().manual_seed(0)) > 0.5
    keep[2] = True
    with torch.no_grad():
        hooks = [(f"blocks.{layer}.attn.hook_pattern", lambda x, hook: None) for layer in range(model.n_layers)]
        with model.hooks(fwd_hooks=hooks if explicit else []):
            found = logits_of_subsets(model, model.embed(image)[0], keep)
        expected = torch.stack([beit_logits_of_subset(model.vit, image[0], row) for row in keep])
        torch.testing.assert_close(expected[2], model.vit(image)[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", BEIT)
def test_libragrad_is_complete(kind: str) -> None:
    model = build_beit(kind)
    image = random_images(model, 1)
    assert completeness_error(model, image, 1).max() > 0.01
    with cl.libragrad(model):
        assert completeness_error(model, image, 1).max() < 1e-6


def test_a_changed_table_or_bias_is_seen() -> None:
    model = build_beit("own_and_shared", torch.float32)
    images = random_images(model, 1)
    attn = model.vit.blocks[1].attn
    seen = [(model(images), model.fingerprint)]
    with torch.no_grad():
        for part in (attn.relative_position_bias_table, model.vit.rel_pos_bias.relative_position_bias_table):
            part.mul_(1.5)
            seen.append((model(images), model.fingerprint))
        attn.k_bias.add_(1)  # a buffer that timm does not save
        seen.append((model(images), model.fingerprint))
        attn.qkv_bias_separate = True
        assert torch.equal(model(images), model.vit(images))
        handle = attn.qkv.register_forward_hook(lambda module, inputs, output: output * 2)
        assert not torch.equal(model(images), seen[-1][0])
        handle.remove()
    assert len({fingerprint for _, fingerprint in seen}) == 4
    assert not any(torch.equal(a, b) for (a, _), (b, _) in itertools.pairwise(seen[:3]))


def test_what_cannot_be_followed_is_refused() -> None:
    small: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with pytest.raises(InputError, match="no pooling"):
        HookedViT(Beit(**small, global_pool=""))

    class Other(Beit):
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            return super().forward_head(2 * x, pre_logits)

    with pytest.raises(InputError, match="Other overrides forward_head"):
        HookedViT(Other(**small))
    model = build_beit("shared", torch.float32)
    images = random_images(model, 1)
    handle = model.vit.rel_pos_bias.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(InputError, match=r"hook on model\.vit\.rel_pos_bias"):
        model(images)
    handle.remove()
    resize(model.vit, (32, 32))
    with pytest.raises(InputError, match="Wrap it again"):
        model(images)


@pytest.mark.parametrize("size", [(24, 32), (32, 32), (48, 16)])
def test_tables_are_resampled_as_timm_does(size: tuple[int, int]) -> None:
    square = randomise(lambda: timm_model(NAME, depth=2, **SHARED | {"use_rel_pos_bias": True})).eval()
    model = HookedViT(timm_model(NAME, depth=2, img_size=size, **SHARED | {"use_rel_pos_bias": True}))
    load_into(model.vit, square.state_dict())
    resize(square, size)
    images = random_images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(images), square(images))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_into(timm_model("vit_base_patch16_224", depth=2), square.state_dict())


def test_names_are_listed() -> None:
    names = cl.list_models("beit*")
    assert "beit_large_patch16_512" in names and "beitv2_base_patch16_224" in names


@pytest.mark.slow
def test_models_load_by_name_at_another_size(tmp_path: Path) -> None:
    vit = timm.create_model(NAME, num_classes=5, img_size=64).eval()
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.relative_position_bias_table.normal_()
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    model = load_model(NAME, checkpoint=tmp_path / "model.safetensors", image_size=(48, 96))
    resize(vit, (48, 96))
    images = random_images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(images), vit(images)) and model.grid == (3, 6)
