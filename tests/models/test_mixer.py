"""HookedMixer: timm's MLP-Mixers with hook points, LibraGrad's rules on them, and the methods that work there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.mlp_mixer import MixerBlock, MlpMixer
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import HookedMixer, InputError
from caap_lab.attribution.ixg import ixg_plus, libra_ixg_plus
from caap_lab.attribution.registry import METHODS
from helpers.methods import QUICK
from helpers.mixers import KINDS, images_for, small_mixer
from helpers.targets import of_classes

GRADIENTS_ON_MIXERS = ("input_x_gradient", "integrated_gradients", "smoothgrad", "ixg_plus", "libra_ixg_plus")
ON_MIXERS = (*GRADIENTS_ON_MIXERS, "simple_insertion", "simple_deletion", "rise", "occlusion", "shapley")


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_timms_own(kind: str) -> None:
    model = small_mixer(kind)
    images = images_for(model, 2)
    with torch.no_grad():
        assert torch.equal(model(images), model.mixer(images))
        with cl.libragrad(model):
            assert torch.equal(model(images), model.mixer(images))
    assert model.grid == ((5, 3) if kind == "odd_grid" else (4, 4))
    assert (model.patch_size, model.n_classes, model.n_layers) == ((8, 8), 7, 3)
    assert model.preprocessing.image_size == ((40, 24) if kind == "odd_grid" else (32, 32))
    assert repr(model).startswith("HookedMixer(MlpMixer: 3 blocks, width 24, grid ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_hook_point_is_read_and_moves_the_output(kind: str) -> None:
    model = small_mixer(kind)
    images = images_for(model, 1)
    with torch.no_grad():
        plain, cache = model.run_with_cache(images)
    in_block = ("hook_resid_pre", "ln1.hook_normalized", "hook_resid_mid", "ln2.hook_normalized", "hook_resid_post")
    outside = {"hook_embed", "ln_final.hook_normalized", "hook_pooled", "hook_logits"}
    ramp = torch.linspace(-1, 1, 24)
    assert set(cache) == set(model.hook_dict) == outside | {f"blocks.{i}.{name}" for i in range(3) for name in in_block}
    for name in model.hook_dict:
        n_patches = model.grid[0] * model.grid[1]
        assert cache[name].shape == {"hook_pooled": (1, 24), "hook_logits": (1, 7)}.get(name, (1, n_patches, 24))
        with torch.no_grad():
            # No mere shift and scale, which the final LayerNorm would undo.
            edited = model.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: x + ramp[: x.shape[-1]])])
        assert not torch.allclose(edited, plain), name
    assert torch.equal(cache["blocks.1.hook_resid_pre"], cache["blocks.0.hook_resid_post"])
    assert not model.has_hooks()


@pytest.mark.parametrize("kind", KINDS)
def test_libra_gradients_are_complete_at_every_block(kind: str) -> None:
    model = small_mixer(kind)
    images = images_for(model, 3)
    with cl.libragrad(model):
        error = cl.completeness_error(model, images, progress=False)
    assert error.shape == (3, 3) and error.max() < 1e-3
    assert cl.completeness_error(model, images, progress=False).amin(1).max() > 0.1  # plain gradients are not
    assert not model.has_hooks() and not hasattr(model, "_backward_rules")


@pytest.mark.parametrize("kind", ["mixer", "gmixer"])
def test_gradients_equal_those_of_a_network_with_constants(kind: str) -> None:
    """One block written out with detached gates and deviations, in float64."""
    model = small_mixer(kind, torch.float64)
    block: Any = model.mixer.blocks[1]
    x = torch.randn(1, 16, 24, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)

    def norm(layer: nn.LayerNorm, h: Tensor) -> Tensor:
        deviation = (h.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt().detach()
        return layer.weight * (h - h.mean(-1, keepdim=True)) / deviation + layer.bias

    def mlp(layer: Any, h: Tensor) -> Tensor:
        h = h @ layer.fc1.weight.T + layer.fc1.bias
        if kind == "mixer":
            h = h * (layer.act(h) / h).detach()
        else:
            linear, gate = h.chunk(2, dim=-1)  # timm's GluMlp takes its gate last
            gate = gate * gate.sigmoid().detach()
            h = (linear * gate.detach() + linear.detach() * gate) / 2  # each factor half
        return h @ layer.fc2.weight.T + layer.fc2.bias

    h = x + mlp(block.mlp_tokens, norm(block.norm1, x).mT).mT
    h = h + mlp(block.mlp_channels, norm(block.norm2, h))
    (expected,) = torch.autograd.grad((h * weights).sum(), x)
    with cl.libragrad(model):
        kept = {}
        hooks = [
            ("blocks.1.hook_resid_pre", lambda h, hook: x),
            ("blocks.1.hook_resid_post", lambda h, hook: kept.update(out=h)),
        ]
        model.run_with_hooks(images_for(model, 1), fwd_hooks=hooks)
        (found,) = torch.autograd.grad((kept["out"] * weights).sum(), x)
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


def test_ixg_plus_is_the_sum_over_blocks() -> None:
    model = small_mixer("odd_grid", torch.float64)
    image, target = images_for(model, 1), 4
    for compute in (ixg_plus, libra_ixg_plus):
        expected = np.zeros((5, 3))
        for layer in range(3):
            kept = {}

            def add_zero(x: Tensor, hook: Any, kept: dict[str, Tensor] = kept) -> Tensor:
                kept["x"], kept["zero"] = x.detach(), torch.zeros_like(x, requires_grad=True)
                return x + kept["zero"]

            with cl.libragrad(model) if compute is libra_ixg_plus else torch.enable_grad():
                logits = model.run_with_hooks(image, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", add_zero)])
                (gradient,) = torch.autograd.grad(logits[0, target], kept["zero"])
            for patch in range(15):
                expected[divmod(patch, 3)] += float(kept["x"][0, patch] @ gradient[0, patch])
        found = compute(model, image, of_classes([target]))[0].numpy()
        assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRADIENTS_ON_MIXERS)
def test_libragrad_changes_the_maps_of_mixers(kind: str, name: str) -> None:
    model = small_mixer(kind)
    image = images_for(model, 1)
    plain = cl.attribute(model, image, name, 2, **QUICK[name])
    with cl.libragrad(model):
        libra = cl.attribute(model, image, name, 2, **QUICK[name])
    assert torch.allclose(libra.scores, plain.scores) == (name == "libra_ixg_plus")  # it follows the rules already
    assert not model.has_hooks()


def test_what_needs_attention_is_refused() -> None:
    model = small_mixer()
    for name, method in METHODS.items():
        assert ("mixer" in method.models) == (name in ON_MIXERS)
    for name in ("rollout", "caap", "full_grad_plus"):
        with pytest.raises(InputError, match=f"{name} works on .*Vision Transformers.*; MlpMixer is a Mixer"):
            cl.attribute(model, images_for(model, 1), name, 0)


def test_models_that_do_not_fit() -> None:
    import timm

    for name, block in (("gmlp_ti16_224", "SpatialGatingBlock"), ("resmlp_12_224", "ResBlock")):
        with torch.device("meta"):
            other = timm.create_model(name)
        with pytest.raises(InputError, match=rf"Block 0 of this MlpMixer is a {block}; only the MixerBlocks"):
            HookedMixer(other)
    with pytest.raises(InputError, match="wraps timm's MlpMixer, not Linear"):
        HookedMixer(nn.Linear(2, 2))
    with pytest.raises(InputError, match="global_pool='avg'"):
        HookedMixer(MlpMixer(img_size=32, num_blocks=1, embed_dim=8, global_pool=""))
    with pytest.raises(InputError, match="Block 0 of this MlpMixer has a BatchNorm1d"):
        HookedMixer(MlpMixer(img_size=32, num_blocks=1, embed_dim=8, norm_layer=nn.BatchNorm1d))
    headless = HookedMixer(MlpMixer(img_size=32, num_blocks=1, embed_dim=8, num_classes=0))
    with pytest.raises(InputError, match="has no classifier"):
        cl.attribute(headless, torch.zeros(3, 32, 32), "ixg_plus")
    model = small_mixer()
    handle = model.mixer.blocks[1].register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match=r"A torch hook on model\.mixer\.blocks or its block 1 would not run"):
        model(images_for(model, 1))
    handle.remove()


def test_loading(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    mixer = timm.create_model("mixer_s32_224", num_classes=3)
    assert type(mixer.blocks[0]) is MixerBlock
    path = tmp_path / "mixer.safetensors"
    save_file(mixer.state_dict(), path)
    model = cl.load_model("mixer_s32_224", checkpoint=path, image_size=224)
    assert isinstance(model, HookedMixer) and model.grid == (7, 7) and model.n_classes == 3
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), mixer.eval()(images))
    assert model.model_name == "mixer_s32_224"
    with pytest.raises(InputError, match=r"image_size=\(256, 256\) is not possible: mixer_s32_224 mixes its patches"):
        cl.load_model("mixer_s32_224", checkpoint=path, image_size=256)
    with pytest.raises(InputError, match=r"is a Mixer and keeps its own head"):
        cl.load_model("mixer_s32_224", checkpoint=path, head=path)
    with pytest.raises(cl.CheckpointError, match="does not fit mixer_b32_224"):
        cl.load_model("mixer_b32_224", checkpoint=path)
    with pytest.raises(InputError, match=r"resmlp_12_224 is not supported: its blocks scale and shift in the place"):
        cl.load_model("resmlp_12_224", checkpoint=path)
    known = cl.list_models("*mixer*")
    assert {"mixer_b16_224", "gmixer_24_224"} <= set(known)
    assert not cl.list_models("*mlp_*224")
