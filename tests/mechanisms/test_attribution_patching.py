"""Attribution patching: against gradients of plain hooks, exact where models are linear, and against traces."""

from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic

from caap_lab.mechanisms.first_order import _Keys
from caap_lab.mechanisms.trace import trace
from caap_lab.mechanisms.trace_cells import TracePlace
from helpers.models import build, by_trait, random_images, randomise
from helpers.passes import Passes
from helpers.plain_paths import logits_of


def plain_estimates(model: cl.HookedViT, given: Tensor, receiver: Tensor, target: int) -> np.ndarray:
    """Gradient times difference of what enters each block, [image, layer, token], with hooks on timm's blocks."""
    kept: list[Tensor] = []

    def keep(_: Any, args: Any) -> Any:
        kept.append(args[0].clone())  # what the block reads, not what a head reads of the block before
        return (kept[-1], *args[1:])

    vit: Any = model.vit
    handles = [block.register_forward_pre_hook(keep) for block in vit.blocks]
    with torch.no_grad():
        logits_of(model, given)
    source, kept[:] = list(kept), []
    gradients = torch.autograd.grad(logits_of(model, receiver)[:, target].sum(), kept)
    for handle in handles:
        handle.remove()
    parts = [(g * (new - old)).sum(-1) for g, new, old in zip(gradients, source, kept, strict=True)]
    return torch.stack(parts, dim=1).detach().numpy()


@pytest.mark.parametrize("family", by_trait())
def test_estimates_equal_gradients_of_plain_hooks(family: str) -> None:
    model = build(family, torch.float64)
    clean, corrupted = random_images(model, 2), random_images(model, 2, seed=1)
    found = cl.attribution_patching(model, clean, corrupted, 3, progress=False)
    expected = plain_estimates(model, clean, corrupted, 3)
    scores = found.data["corrupted"].values[:, None, None]
    np.testing.assert_allclose(found.values - scores, expected, atol=1e-10)


def linear(depth: int, keys: float) -> cl.HookedViT:
    """A model without norms and activations; `keys` is the scale of queries and keys, 0 for a fixed pattern."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 3, "num_classes": 7}
    vit = randomise(lambda: VisionTransformer(norm_layer=nn.Identity, act_layer=nn.Identity, **sizes))
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.qkv.weight[:48] *= keys  # type: ignore[union-attr, index, operator]
            block.attn.qkv.bias[:48] *= keys  # type: ignore[union-attr, index, operator]
    return cl.HookedViT(vit.double())


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_estimates_are_exact_where_the_model_is_linear(direction: str) -> None:
    fixed = linear(3, keys=0)
    images = random_images(fixed, 2), random_images(fixed, 2, seed=1)
    for places in ({"points": ["resid_pre", "mlp_out"]}, {"points": ["z", "v"], "by": "head"}):
        options = {"direction": direction, "progress": False} | places
        estimated = cl.attribution_patching(fixed, *images, 2, **options)
        np.testing.assert_allclose(estimated.per_image, trace(fixed, *images, 2, **options).per_image, atol=1e-10)
    one = linear(1, keys=1)  # behind its only pattern all is linear
    for by in ({"by": "head"}, {"by": "token", "heads": [0, 2]}, {"by": "layer", "tokens": [1, 4, 5]}):
        options = {"points": ["q", "k"], "direction": direction, "progress": False} | by
        traced = trace(one, *images, 2, **options)
        corrected = cl.attribution_patching(one, *images, 2, correction="softmax", **options)
        np.testing.assert_allclose(corrected.per_image, traced.per_image, atol=1e-10)
        linear_step = cl.attribution_patching(one, *images, 2, **options)
        assert np.abs(linear_step.per_image - traced.per_image).max() > 1e-3


def test_single_keys_by_formula_equal_a_softmax_of_each() -> None:
    scores, patched, slope = (torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(s)) for s in range(3))
    patched[0, 0, 0, 0], patched[1, 2, 4, 1] = 200, -200  # exp() of the change would overflow
    effects = _Keys(scores.double(), patched.double(), slope.double())
    for key in range(6):
        mask = np.arange(6)[None] == key
        place = TracePlace("attn.k", (0,), np.repeat(mask, 2, axis=0), None)
        alone = effects.of(place, slice(None))  # two rows of a mask: by the softmax
        torch.testing.assert_close(effects.of(place._replace(tokens=mask), slice(None)), alone, atol=1e-10, rtol=0)


def test_two_forward_passes_and_one_backward_pass() -> None:
    model = build("vit")
    images = random_images(model, 3), random_images(model, 3, seed=1)
    with Passes(model) as passes:
        found = cl.attribution_patching(model, *images, batch_size=2, progress=False)
    assert passes.forwards == pytest.approx(2 * 3) and passes.backwards == 3
    assert found.data.attrs["passes"] == 6 and found.data.attrs["backward_passes"] == 3
    assert found.data.attrs["plain_passes"] == 3 * (2 + 4 * 17)
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.has_hooks()


def test_estimates_stand_beside_a_trace_and_say_how_they_were_made() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3), random_images(model, 1, seed=1)
    targets = {"one": [1, 2, 3], "two": cl.contrast(2)}
    options: dict[str, Any] = {"points": ["z", "k"], "by": "head", "progress": False}
    found = cl.attribution_patching(model, *images, targets, **options)
    traced = trace(model, *images, targets, **options)
    assert (
        found.axes
        == traced.axes
        == {"point": ["z", "k"], "layer": [0, 1, 2, 3], "head": [0, 1, 2], "target": ["one", "two"]}
    )
    np.testing.assert_allclose(found.data["clean"], traced.data["clean"])
    assert found.quantity == f"estimated {traced.quantity}"
    for block in model.vit.blocks:
        block.attn.fused_attn = not block.attn.fused_attn
    small = cl.attribution_patching(model, *images, targets, batch_size=1, **options)
    np.testing.assert_allclose(small.per_image, found.per_image, atol=1e-10)  # neither kernels nor batches matter
    agreement = found.compare(traced)
    assert agreement.per_image.shape == (3, 2, 2) and agreement.axes["point"] == ["z", "k"]
    assert agreement.mean[0].min() > 0.8  # of z
    misses = agreement.misses(4)
    assert list(misses["difference"].abs()) == sorted(misses["difference"].abs(), reverse=True)
    worst = misses.iloc[0]
    place = np.unravel_index(np.abs(found.mean - traced.mean).argmax(), found.mean.shape)
    assert worst["layer"] == place[1] and worst["head"] == place[2] and worst["measured"] == traced.mean[place]
    assert "z one" in repr(agreement) and agreement._repr_mimebundle_()["image/png"]
    with pytest.raises(cl.InputError, match="their direction differ"):
        found.compare(trace(model, *images, targets, direction="noise", **options))


def test_libragrad_rules() -> None:
    model = build("vit", torch.float64)
    images = random_images(model, 2), random_images(model, 2, seed=1)
    found = cl.attribution_patching(model, *images, 1, rules="libra", progress=False)
    with cl.libragrad(model):
        within = cl.attribution_patching(model, *images, 1, progress=False)
    plain = cl.attribution_patching(model, *images, 1, progress=False)
    np.testing.assert_allclose(found.per_image, within.per_image, atol=1e-12)
    assert np.abs(found.per_image - plain.per_image).max() > 1e-3 and found.data.attrs["rules"] == "libra"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"correction": "softmax"}, "have none: resid_pre"),
        ({"correction": "hardmax", "points": "q"}, "use one of softmax"),
        ({"rules": "libra", "points": "q", "by": "head"}, "would all be 0"),
        ({"rules": "lrp"}, "use one of libra"),
        ({"direction": "sideways"}, "denoise, noise"),
        ({"points": "resid_pre", "by": "head"}, "has no heads"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    model = build("vit")
    images = random_images(model, 2)
    with pytest.raises(cl.InputError, match=words):
        cl.attribution_patching(model, images[:1], images[1:], 1, progress=False, **options)


def test_pairs_and_models_that_do_not_fit_are_refused() -> None:
    model = build("vit")
    images = random_images(model, 3)
    with pytest.raises(cl.InputError, match="3 of 3 pairs cannot be normalised"):
        cl.attribution_patching(model, images, images, 1, progress=False)
    with pytest.raises(cl.InputError, match="do not form pairs"):
        cl.attribution_patching(model, images, images[:2], 1, progress=False)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning")
def test_a_quantised_model_gives_paths_but_no_estimates() -> None:
    quantised = cl.wrap(quantize_dynamic(build("vit").vit, {nn.Linear}, dtype=torch.qint8))
    images = random_images(quantised, 3)
    exact = cl.path_patch(quantised, images[:1], images[1:], "0.1", ["2.0.q", "logits"], 1, progress=False)
    assert np.isfinite(exact.per_image).all()
    with pytest.raises(cl.InputError, match="screen= needs gradients"):
        cl.path_patch(quantised, images[:1], images[1:], "0.1", "2.0.q", 1, screen=1, progress=False)
    with pytest.raises(cl.InputError, match="needs gradients"):
        cl.attribution_patching(quantised, images[:1], images[1:2], 1, progress=False)
