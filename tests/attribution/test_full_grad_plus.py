"""FullGrad+: against a network whose biases are tensors of their own, and its identity under LibraGrad."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import caap_lab as cl
from caap_lab import HookedViT
from caap_lab.attribution.full_grad_plus import full_grad_of_tokens, full_grad_plus
from caap_lab.attribution.ixg import ixg_plus
from helpers.models import ALL_FAMILIES, build, by_trait, random_images
from helpers.targets import of_classes


class Biased(nn.Module):
    """A linear layer or LayerNorm whose bias is one leaf for every token (and head), kept call by call."""

    def __init__(self, layer: Any, libra: bool) -> None:
        super().__init__()
        self.layer, self.libra = layer, libra
        self.leaves: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.Linear):
            out = F.linear(x, layer.weight)
        else:
            deviation = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
            out = layer.weight * (x - x.mean(-1, keepdim=True)) / (deviation.detach() if self.libra else deviation)
        self.leaves.append(layer.bias.detach().expand_as(out).clone().requires_grad_())
        return out + self.leaves[-1]


def plain_full_grad(family: str, image: Tensor, target: int, libra: bool, entering: bool) -> Tensor:
    """[layer, token], token by token and bias by bias."""
    model = copy.deepcopy(build(family, torch.float64))
    for module in model.modules():  # biases beside their layer become its own
        if getattr(module, "q_bias", None) is not None:
            module.qkv.bias = nn.Parameter(torch.cat((module.q_bias, module.k_bias, module.v_bias)))
            module.q_bias = module.k_bias = module.v_bias = None
    owners = {}
    for name, module in list(model.named_modules()):
        known = isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None
        if known and not name.startswith(("vit.patch_embed", "vit.norm_pre") if entering else "vit.patch_embed"):
            owners[name] = Biased(module, libra)
            model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]] = owners[name]
    streams = []

    def keep(x: Tensor, hook: Any) -> Tensor:
        streams.append(x.view_as(x))
        return streams[-1]

    with cl.libragrad(model) if libra else torch.enable_grad():
        hooks = [(f"blocks.{layer}.hook_resid_pre", keep) for layer in range(model.n_layers)]
        if not entering:
            hooks[0] = ("hook_full_embed", keep)  # before the norm in front of block 0, if there is one
        logit = model.run_with_hooks(image[None].clone().requires_grad_(), fwd_hooks=hooks)[0, target]
        leaves = [(name, leaf) for name, owner in owners.items() for leaf in owner.leaves]
        inputs = [*streams, *(leaf for _, leaf in leaves)]
        products = [
            torch.zeros_like(x) if gradient is None else (x * gradient).detach()
            for x, gradient in zip(inputs, torch.autograd.grad(logit, inputs, allow_unused=True), strict=True)
        ]
    n_tokens, n_prefix, n_layers = model.spec.n_tokens, model.spec.n_prefix, model.n_layers
    patches = range(n_prefix, n_tokens)
    found = torch.zeros(n_layers, n_tokens, dtype=torch.float64)
    for layer in range(n_layers):
        for token in range(n_tokens):
            found[layer, token] += products[layer][0, token].sum()
        for (name, _), product in zip(leaves, products[n_layers:], strict=True):
            in_block = int(name.split(".")[2]) if name.startswith("vit.blocks.") else n_layers
            in_block = 0 if name == "vit.norm_pre" else in_block
            if in_block < layer:
                continue
            if in_block < n_layers or (name == "vit.norm" and product.ndim == 3):
                for token in range(n_tokens):
                    found[layer, token] += product[0, ..., token, :].sum()
            elif name == "vit.attn_pool.kv":
                for place, token in enumerate(model.spec.read_tokens):
                    found[layer, token] += product[0, place].sum()
            elif "cls" in model.spec.prefix:
                found[layer, 0] += product.sum()
            else:
                for token in patches:
                    found[layer, token] += product.sum() / len(patches)
    return found


@pytest.mark.parametrize("libra", [False, True])
@pytest.mark.parametrize(
    ("family", "first_term"),
    [*by_trait(ALL_FAMILIES, "before_norm_pre"), ("clip", "entering_block"), ("vit", "entering_block")],
)
def test_plain_definition(family: str, first_term: str, libra: bool) -> None:
    model = build(family, torch.float64)
    images, targets = random_images(model, 2), torch.tensor([3, 5])
    with cl.libragrad(model) if libra else torch.no_grad():
        found = full_grad_of_tokens(model, images, of_classes(targets), first_term)
        scores = full_grad_plus(model, images, of_classes(targets), first_term=first_term)
    for row in range(2):
        expected = plain_full_grad(family, images[row], int(targets[row]), libra, first_term == "entering_block")
        assert (found[row] - expected).abs().max() < 1e-10 * expected.abs().max()
    patches = found.sum(1)[:, model.spec.n_prefix :].reshape(2, *model.spec.grid)
    assert (scores - patches).abs().max() < 1e-12 * patches.abs().max()
    assert not model.has_hooks()


def deviation(model: HookedViT, images: Tensor, targets: Tensor) -> Tensor:
    """|sum over all tokens - y| / |y| at every block up to the first whose class token the head reads by itself."""
    with torch.no_grad():
        logits = model(images).gather(1, targets[:, None]).double()
    sums = (
        full_grad_of_tokens(model, images, of_classes(targets))
        .double()
        .sum(-1)[:, : model.n_layers - model.class_layers + 1]
    )
    return (sums - logits).abs() / logits.abs()


def test_all_tokens_add_up_to_the_logit_under_libragrad(family: str) -> None:
    model = build(family)
    images = random_images(model, 2)
    with torch.no_grad():
        targets = model(images).argmax(1)
    with cl.libragrad(model):
        error = deviation(model, images, targets)
        assert error.max() < 1e-3
        reported = cl.completeness_error(model, images, progress=False)
    assert (error - reported).abs().max() < 1e-4
    assert deviation(model, images, targets).max() > 0.02  # plain gradients do not


def test_without_biases_it_is_ixg_plus() -> None:
    model = build("vit", torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    images, targets = random_images(model, 2), torch.tensor([3, 5])
    difference = full_grad_plus(model, images, of_classes(targets)) - ixg_plus(model, images, of_classes(targets))
    assert difference.abs().max() < 1e-12
