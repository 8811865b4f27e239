"""LibraGrad's backward rules, completeness, and IxG+."""

from typing import Any

import pytest
import torch

import caap_lab as cl
from caap_lab import HookedViT
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.ixg import ixg_plus, libra_ixg_plus
from helpers.mixers import small_mixer
from helpers.models import build, random_images, randomise, timm_model
from helpers.targets import of_classes


def test_forward_is_bit_equal_and_nothing_is_left(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with torch.no_grad():
        plain = model(images)
        with cl.libragrad(model), cl.libragrad(model):
            assert torch.equal(model(images), plain)
        assert torch.equal(model(images), plain)
    assert not model.has_hooks() and not hasattr(model, "_backward_rules")


def test_libra_gradients_are_complete_at_every_block(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with cl.libragrad(model):
        error = completeness_error(model, images, progress=False)
    assert error.shape == (2, model.n_layers - model.class_layers + 1) and error.max() < 1e-3
    assert completeness_error(model, images, progress=False).max() > 0.02  # plain gradients are not
    assert not model.has_hooks()
    assert all(parameter.grad is None for parameter in model.parameters())


PAPER = {
    "ViT": "vit_base_patch16_224",
    "EVA-02": "eva02_base_patch14_448",
    "BEiT v2": "beitv2_base_patch16_224",
    "FlexiViT": "flexivit_base",
    "SigLIP": "vit_base_patch16_siglip_224",
    "CLIP": "vit_base_patch16_clip_224",
    "DeiT III": "deit3_base_patch16_224",
}
"""Architectures of the paper's experiments; the eighth is MLP-Mixer."""


@pytest.mark.parametrize("architecture", [*PAPER, "MLP-Mixer"])
def test_libra_gradients_are_complete_on_the_papers_architectures(architecture: str) -> None:
    model = (
        HookedViT(randomise(lambda: timm_model(PAPER[architecture], depth=2)))
        if architecture in PAPER
        else small_mixer("mixer", torch.float32)
    )
    images = random_images(model, 1)
    assert completeness_error(model, images, 3).max() > 0.01
    with cl.libragrad(model):
        assert completeness_error(model, images, 3).max() < 1e-3


@pytest.mark.parametrize("name", ["demo", "demo-clip", "demo-dinov2", "demo-deit3"])
def test_libra_gradients_are_complete_on_trained_models(name: str) -> None:
    model = cl.load_model(name).requires_grad_(False)
    images = [scene.image for scene in cl.demo_images(n=4)]
    with cl.libragrad(model):
        error = completeness_error(model, images, progress=False)
    assert error.max() < 1e-3
    assert completeness_error(model, images, target=3, progress=False).median() > 0.05
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_rules_are_undone_after_an_error() -> None:
    model = build("vit")
    with pytest.raises(RuntimeError, match="stop"), cl.libragrad(model):
        raise RuntimeError("stop")
    assert not model.has_hooks() and not hasattr(model, "_backward_rules")


def test_unknown_parts_are_refused() -> None:
    model = build("vit")
    model.vit.blocks[1].mlp.act = torch.nn.Tanh()
    with pytest.raises(cl.InputError, match="no rule for the activation Tanh"), cl.libragrad(model):
        pass
    assert not model.has_hooks()
    with pytest.raises(cl.InputError, match="demo-cnn is a CNN"), cl.libragrad(cl.load_model("demo-cnn")):
        pass


@pytest.mark.parametrize("name", ["vit", "deit3", "dinov2_swiglu", "clip"])
def test_gradients_equal_those_of_a_network_with_constants(name: str) -> None:
    """The same gradients from one block written out with detached gates, deviations, queries and keys."""
    model = build(name).double()
    block = model.block(1)
    x = torch.randn(1, model.spec.n_tokens, model.spec.d_model, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)

    def norm(layer: torch.nn.LayerNorm, h: torch.Tensor) -> torch.Tensor:
        deviation = (h.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt().detach()
        return layer.weight * (h - h.mean(-1, keepdim=True)) / deviation + layer.bias

    def gated(activation: torch.nn.Module, h: torch.Tensor) -> torch.Tensor:
        return h * (activation(h) / h).detach()

    heads, width = model.spec.n_heads, model.spec.d_head
    q, k, v = block.attn.qkv(norm(block.norm1, x)).reshape(1, -1, 3, heads, width).permute(2, 0, 3, 1, 4)
    pattern = (q @ k.transpose(-1, -2) * block.attn.scale).softmax(-1).detach()
    h = x + block.ls1(block.attn.proj((pattern @ v).transpose(1, 2).reshape(x.shape)))
    inner = norm(block.norm2, h)
    if model.spec.gated_mlp:
        u, w = block.mlp.fc1(inner).chunk(2, dim=-1)
        u = gated(block.mlp.act, u)
        post = (u * w).detach() + 0.5 * (u * w - (u * w).detach())
    else:
        post = gated(block.mlp.act, block.mlp.fc1(inner))
    h = h + block.ls2(block.mlp.fc2(block.mlp.norm(post)))
    (expected,) = torch.autograd.grad((h * weights).sum(), x)
    with cl.libragrad(model):
        (found,) = torch.autograd.grad((model.run_block(1, x) * weights).sum(), x)
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


def test_ixg_plus_is_the_sum_over_blocks() -> None:
    model = build("deit3").double()
    images = random_images(model, 2)
    targets = torch.tensor([1, 4])
    for compute in (ixg_plus, libra_ixg_plus):
        parts = []
        for layer in range(model.n_layers):
            total = torch.zeros(2, *model.spec.grid, dtype=torch.float64)
            for image in range(2):
                name = f"blocks.{layer}.hook_resid_pre"
                rules = cl.libragrad(model) if compute is libra_ixg_plus else torch.enable_grad()
                with rules:
                    leaf = model.run_with_cache(images[image : image + 1])[1][name].detach().requires_grad_()
                    logit = model(leaf, start_at_layer=layer)[0, targets[image]]
                    (gradient,) = torch.autograd.grad(logit, leaf)
                for patch in range(model.spec.n_patches):
                    token = model.spec.n_prefix + patch
                    row, column = divmod(patch, model.spec.grid[1])
                    total[image, row, column] = (leaf[0, token] * gradient[0, token]).sum()
            parts.append(total)
        for first in (0, 2):
            expected = torch.stack(parts[first:]).sum(0)
            found = compute(model, images, of_classes(targets), start_layer=first)
            assert (found - expected).abs().max() < 1e-9 * expected.abs().max()
    with pytest.raises(cl.InputError, match="start_layer=9 must be a whole number from 0 to 3"):
        ixg_plus(model, images, of_classes(targets), start_layer=9)


@pytest.mark.parametrize("compute", [ixg_plus, libra_ixg_plus])
def test_ixg_plus_reads_the_first_term_before_the_norm_in_front_of_block_0(compute: Any) -> None:
    model = build("clip").double()
    images, target = random_images(model, 1), torch.tensor([1])
    vit, prefix = model.vit, model.spec.n_prefix
    with cl.libragrad(model) if compute is libra_ixg_plus else torch.enable_grad():
        embedded = vit._pos_embed(vit.patch_embed(images)).detach().requires_grad_()
        streams = [vit.norm_pre(embedded)]
        for layer in range(model.n_layers):
            streams.append(model.run_block(layer, streams[-1]))
        inputs = [embedded, *streams[:-1]]
        terms = [
            (x * gradient).detach().sum(-1)[0, prefix:].reshape(model.spec.grid)
            for x, gradient in zip(inputs, torch.autograd.grad(model.unembed(streams[-1])[0, 1], inputs), strict=True)
        ]
    before, behind, *others = terms
    rest = torch.stack(others).sum(0)
    assert (before - behind).abs().max() > 0.01 * behind.abs().max()
    for found, expected in (
        (compute(model, images, of_classes(target)), before + rest),
        (compute(model, images, of_classes(target), first_term="entering_block"), behind + rest),
        (compute(model, images, of_classes(target), start_layer=1), rest),
        (compute(model, images, of_classes(target), start_layer=-1), others[-1]),
    ):
        assert (found[0] - expected).abs().max() < 1e-10 * expected.abs().max()
    with pytest.raises(cl.InputError, match="first_term='first' is not known; use one of before_norm_pre"):
        compute(model, images, of_classes(target), first_term="first")
