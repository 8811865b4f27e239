"""Weights that a method must not read past: adapters, parametrizations, modules in place of timm's linear layers."""

import copy
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.attribution.full_grad_plus import full_grad_plus
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from helpers.models import build, random_images, randomise, timm_model
from helpers.targets import of_classes

QUICK: dict[str, dict[str, Any]] = {
    "mda": {"steps": 2},
    "tis": {"clusters": 4},
    "rise": {"samples": 20},
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
}


@pytest.fixture(scope="module")
def live() -> HookedViT:
    """A model with live LoRA adapters on every linear layer of its blocks."""
    vit = randomise(lambda: timm_model("vit_base_patch16_224", depth=2))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["qkv", "proj", "fc1", "fc2"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(vit, config)
    return HookedViT(adapted.base_model.model)


@pytest.fixture(scope="module")
def merged(live: HookedViT) -> HookedViT:
    """The same function with the adapters added to plain weights."""
    vit = copy.deepcopy(live.vit)
    for name, module in list(vit.named_modules()):
        if hasattr(module, "merge") and hasattr(module, "base_layer"):
            module.merge()
            vit.set_submodule(name, module.base_layer)
    return HookedViT(vit)


@pytest.mark.parametrize("method", METHODS)
def test_live_adapters_give_the_merged_models_maps(live: HookedViT, merged: HookedViT, method: str) -> None:
    image = random_images(live, 1)
    options = QUICK.get(method, {})
    found, expected = (cl.attribute(model, image, method, 3, progress=False, **options) for model in (live, merged))
    assert isinstance(found, AttributionMap) and isinstance(expected, AttributionMap)
    assert (found.scores - expected.scores).abs().max() < 1e-4 * expected.scores.abs().max()


@pytest.mark.parametrize("libra", [False, True])
def test_live_adapters_are_as_complete_as_the_merged_model(live: HookedViT, merged: HookedViT, libra: bool) -> None:
    image = random_images(live, 1)
    errors = []
    for model in (live, merged):
        with cl.libragrad(model) if libra else torch.enable_grad():
            errors.append(cl.completeness_error(model, image, progress=False))
    torch.testing.assert_close(errors[0], errors[1], rtol=1e-3, atol=1e-3)
    assert not libra or errors[0].max() < 1e-3


@pytest.mark.parametrize("method", ["caap", "transformer_attribution", "full_grad_plus", "libra_ixg_plus"])
def test_parametrized_weights_are_read_as_they_act(method: str) -> None:
    plain = build("vit", torch.float64)  # float32 rounds the weights apart, which T-Attr magnifies
    wrapped = HookedViT(copy.deepcopy(plain.vit))
    for block in wrapped.vit.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            parametrizations.weight_norm(layer)
            layer.parametrizations.weight.original0.data.mul_(1.5)  # the weights that act are 1.5 times as large
    wrapped.eval()
    for block in plain.vit.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.weight.data.mul_(1.5)
    image = random_images(plain, 1)
    found, expected = (cl.attribute(model, image, method, 3, progress=False) for model in (wrapped, plain))
    assert isinstance(found, AttributionMap) and isinstance(expected, AttributionMap)
    assert (found.scores - expected.scores).abs().max() < 1e-4 * expected.scores.abs().max()


# -- biases by what they do -------------------------------------------------------------------------------------------


class ApartBiases(nn.Module):
    """Queries, keys and values with biases under names of their own, and none for keys, as in BEiT."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        width = plain.in_features
        self.weight = nn.Parameter(plain.weight.detach().clone())
        self.q_bias = nn.Parameter(plain.bias.detach()[:width].clone())
        self.v_bias = nn.Parameter(plain.bias.detach()[2 * width :].clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))


class Shifted(nn.Linear):
    """A linear layer with a bias that is a buffer besides its own."""

    shift: Tensor

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out)
        self.register_buffer("shift", torch.randn(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


def with_apart_biases() -> tuple[HookedViT, HookedViT]:
    """The same function with biases under other names, and under timm's."""
    plain = build("vit")
    for block in plain.vit.blocks:
        block.attn.qkv.bias.data[24:48] = 0
    other = HookedViT(copy.deepcopy(plain.vit))
    torch.manual_seed(0)
    head = Shifted(24, 7).eval()
    other.vit.head = head
    plain.vit.head.load_state_dict({"weight": head.weight, "bias": head.bias + head.shift})
    for block in other.vit.blocks:
        block.attn.qkv = ApartBiases(block.attn.qkv).eval()
    return other, plain


def test_biases_under_any_name_count() -> None:
    other, plain = with_apart_biases()
    image, target = random_images(plain, 1), of_classes([3])
    torch.testing.assert_close(other(image), plain(image))
    found, expected = full_grad_plus(other, image, target), full_grad_plus(plain, image, target)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    with cl.libragrad(other):
        assert cl.completeness_error(other, image, progress=False).max() < 1e-3
    found, expected = (cl.attribute(m, image, "transformer_attribution", 3, progress=False) for m in (other, plain))
    assert (found.scores - expected.scores).abs().max() < 1e-4 * expected.scores.abs().max()


# -- activations anywhere ---------------------------------------------------------------------------------------------


class Squares(nn.Module):
    """A head with weights whose activation no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 8), nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).square())


HEADS = {
    "gelu": lambda: nn.Sequential(nn.Linear(24, 8), nn.GELU(), nn.Linear(8, 7)),
    "silu": lambda: nn.Sequential(nn.Linear(24, 8), nn.SiLU(), nn.Dropout(0.5), nn.Linear(8, 7)),
    "batch_norm": lambda: nn.Sequential(nn.BatchNorm1d(24), nn.Linear(24, 7)),
    "leaky": lambda: nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 8), nn.LeakyReLU(), nn.Linear(8, 7)),
}


def with_head(head: nn.Module) -> HookedViT:
    """A small model with a head of its own."""
    vit = build("vit").vit
    for part in head.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    vit.head = head
    return HookedViT(vit)


@pytest.mark.parametrize("kind", HEADS)
def test_rules_cover_the_heads_activations(kind: str) -> None:
    torch.manual_seed(0)
    model = with_head(HEADS[kind]())
    images = random_images(model, 2)
    with cl.libragrad(model):
        assert cl.completeness_error(model, images, progress=False).max() < 1e-3
    maps = cl.attribute(model, images, "transformer_attribution", 3, progress=False)
    assert all(m.scores.max() > 0 for m in maps)


@pytest.mark.parametrize("method", ["libra_ixg_plus", "transformer_attribution", "full_grad_plus"])
def test_a_part_without_a_rule_is_refused_by_name(method: str) -> None:
    model = with_head(Squares())
    with pytest.raises(InputError, match=r"has no rule for Squares in vit\.head"):
        cl.attribute(model, random_images(model, 1), method, 3, progress=False)
    assert not model.has_hooks()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.Softplus])
def test_activations_without_a_rule_are_refused_in_the_head(activation: type[nn.Module]) -> None:
    model = with_head(nn.Sequential(nn.Linear(24, 8), activation(), nn.Linear(8, 7)))
    name = activation.__name__
    with pytest.raises(InputError, match=rf"no rule for the activation {name} in vit\.head\.1"), cl.libragrad(model):
        pass
    assert not model.has_hooks()


def test_a_rebound_forward_is_not_taken_for_the_classs_own() -> None:
    model = with_head(nn.Linear(24, 7))
    model.vit.head.forward = lambda x: F.linear(x, model.vit.head.weight).square()
    for method in ("libra_ixg_plus", "transformer_attribution"):
        with pytest.raises(InputError, match=r"has no rule for Linear in vit\.head"):
            cl.attribute(model, random_images(model, 1), method, 3, progress=False)
