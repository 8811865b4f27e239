"""Backward rules that conserve gradient times input: those of LibraGrad and AttnLRP, which are nearly the same.

The forward pass does not change. Changes of the backward pass, for both:

- LayerNorm and RMSNorm: the standard deviation is a constant;
- an activation function x g(x) (GELU in all forms, SiLU): the gate g is a constant, so that the gradient is
  output / input;
- a gated product u v: both factors get half of the gradient;
- L2 normalisation before a zero-shot head: the norm is a constant.

Attention patterns are constants, or both products of attention are halved and the softmax keeps its gradient. Linear
layers keep their gradient, or use LRP's gamma rule. LayerScale, rotary positions, residual sums and mean pooling are
linear. Any other module, for example a custom one in the head, is tested on its input: if it conserves gradient times
input it keeps its gradient, otherwise it is an error.

A convolutional stem comes before all tokens: gradients of tokens do not pass it, and gradients of pixels are an error.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import GluMlp, HybridEmbed, SwiGLU
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.attribution.model_parts import (
    ACTIVATIONS,
    LINEAR,
    NORMS,
    SILENT,
    constant_part,
    is_activation,
    parts,
    runs_as,
)
from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.attention_pool import LatentPooling
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import widened
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.running import held
from caap_lab.models.vit import HookedViT

_HOMOGENEOUS = (nn.LeakyReLU, nn.PReLU)
"""Activation functions that conserve gradient times input without a rule."""
Hook = Callable[..., Any]


@dataclass(frozen=True)
class Rules:
    """The rules of a backward pass."""

    name: str
    """Name of the rules in errors."""
    constant_patterns: bool
    """True: queries and keys get no gradient, and values get all of it. False: queries times keys and pattern times
    values are products of two variables, whose factors get half of the gradient each."""
    gamma: float = 0.0
    """Parameter of LRP's gamma rule for linear layers; with 0 they keep their gradient."""
    patch_gamma: float = 0.0
    """The same for the patch convolution."""


@contextmanager
def ruled(model: HookedModel, rules: Rules) -> Iterator[None]:
    """Context in which every gradient of the model follows some rules; other threads wait for the model.

    Contexts with the same rules may be nested; they are applied once.

    Raises:
        InputError: there is no rule for a part of the model, or it already follows other rules.
    """
    with held(model):
        inside = getattr(model, "_backward_rules", rules)
        if inside != rules:
            raise InputError(f"This model already follows {inside.name}; leave that context to use {rules.name}.")
        with ExitStack() as stack:
            if not hasattr(model, "_backward_rules"):
                _apply(model, rules, stack)
            yield


def _apply(model: HookedModel, rules: Rules, stack: ExitStack) -> None:
    points = _attention_points(model, rules) if isinstance(model, HookedViT) else []
    apart = model.architecture.biases_apart() if isinstance(model, HookedViT) else {}
    for name, module in parts(model):
        for rule in _of_part(name, module, rules, apart):
            stack.callback(module.register_forward_hook(rule).remove)
    for module in model.modules():
        if isinstance(module, (GluMlp, SwiGLU)):  # the steps after the product
            stack.callback(module.drop1.register_forward_hook(_halve_output).remove)
    stack.enter_context(model.hooks(fwd_hooks=points))
    model._backward_rules = rules  # type: ignore[assignment]
    stack.callback(model.__dict__.pop, "_backward_rules")


def _attention_points(model: HookedViT, rules: Rules) -> list[tuple[Any, Hook]]:
    if any(model.architecture.block(layer).attention.gated for layer in range(model.n_layers)):
        raise InputError(f"{rules.name} has no rule for gated attention, which this model has.")
    if rules.constant_patterns:
        return [(site.hook, _stop_at) for short in ("attn.q", "attn.k") for site in model.find(short)]
    points: list[tuple[Any, Hook]] = [
        (site.hook, _halve_at) for short in ("attn.q", "attn.k", "attn.z") for site in model.find(short)
    ]
    pool = getattr(model.vit, "attn_pool", None)
    if pool is not None:
        if not isinstance(model.readout.attention, LatentPooling):
            raise InputError(f"{rules.name} has no rule for this model's pooling, {type(pool).__name__}.")
        # Its queries are parameters, so their product with the keys is linear in the keys.
        points += [("attn_pool.hook_q", _stop_at), ("attn_pool.hook_z", _halve_at)]
    return points


def _of_part(name: str, module: nn.Module, rules: Rules, apart: Mapping[nn.Module, Tensor]) -> list[Hook]:
    """The hooks on a part's output, in order."""
    kind = type(module).__name__
    if runs_as(module, NORMS):
        return [_norm]
    if isinstance(module, ZeroShotHead):
        return [_zero_shot]
    if isinstance(module, HybridEmbed):
        return [partial(_stem, rules.name)]
    if kind in ACTIVATIONS and not is_replaced(module):
        return [_activation]
    if (name.endswith(".act") or is_activation(module)) and not isinstance(module, (nn.Identity, *_HOMOGENEOUS)):
        raise InputError(
            f"{rules.name} has no rule for the activation {kind} in {name}; it has rules for {', '.join(ACTIVATIONS)}."
        )
    found: list[Hook] = [] if runs_as(module, (*LINEAR, *SILENT)) else [_check(rules, name)]
    gamma = rules.patch_gamma if isinstance(module, nn.Conv2d) else rules.gamma
    if gamma and runs_as(module, LINEAR):
        found.append(partial(_gamma, gamma, apart.get(module)))
    if rules.constant_patterns and name.endswith("attn_pool.q"):
        found.append(_stop)
    if rules.constant_patterns and name.endswith("attn_pool.kv"):
        found.append(_stop_first_half)
    return found


def _check(rules: Rules, name: str) -> Hook:
    """A hook that checks once that a part conserves gradient times input, and raises InputError if not."""
    checked: list[bool] = []

    def check(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not checked:
            constant_part(rules.name, name, module, inputs)
            if rules.gamma:
                raise InputError(
                    f"{type(module).__name__} in {name} is no plain linear layer, for which alone the gamma rule is "
                    "known. Take gamma=0."
                )
            checked.append(True)

    return check


def _same_forward(output: Tensor, ruled: Tensor) -> Tensor:
    """The output's values with the other's gradient."""
    return output.detach() + (ruled - ruled.detach())


def _norm(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    wide = widened(x)
    eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps  # torch's RMSNorm uses the format's eps
    if isinstance(module, nn.LayerNorm):
        centred = wide - wide.mean(-1, keepdim=True)
        size = (wide.detach().var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    else:
        centred = wide
        size = (wide.detach().square().mean(-1, keepdim=True) + eps).sqrt()
    ruled = centred / size
    if module.weight is not None:
        ruled = ruled * module.weight
    if getattr(module, "bias", None) is not None:
        ruled = ruled + module.bias  # the bias keeps its gradient, which completeness counts
    return _same_forward(output, ruled.to(output.dtype))


def _activation(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    gate = torch.where(x == 0, torch.full_like(x, 0.5), output / x).detach()
    return _same_forward(output, x * gate)


def _zero_shot(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    assert isinstance(module, ZeroShotHead)
    unit = x / x.detach().norm(dim=-1, keepdim=True)
    return _same_forward(output, module.logit_scale * unit @ module.text_embeddings.T)


def _stem(name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return _NoWayBack.apply(output, name)


class _NoWayBack(torch.autograd.Function):
    """An identity whose backward pass is an error: a convolutional stem, through which only gradients of pixels go."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        raise InputError(
            f"{ctx.name} has no rules for this model's convolutional stem (vit.patch_embed), which gradients of pixels "
            "pass. Use a method that reads tokens, such as libra_ixg_plus."
        )


def _gamma(
    gamma: float, apart: Tensor | None, module: Any, inputs: tuple[Tensor], output: Tensor
) -> Float[Tensor, "..."]:
    """The generalised gamma rule: terms with the sign of the output are weighted by 1 + gamma.

    With w+ and w- the positive and negative parts, an output z > 0 of sum_i x_i w_i + b distributes its relevance in
    proportion to x_i (w_i + gamma w_i+) for x_i > 0 and x_i (w_i + gamma w_i-) for x_i < 0, and b + gamma b+ for the
    bias; for z < 0 the signs are reversed. As a gradient each term is divided by x_i, in which it is linear.
    """
    (x,) = inputs
    weight, bias = module.weight, module.bias if apart is None else apart
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if isinstance(module, nn.Conv2d):
        bias = bias[:, None, None]
    z = output.detach() + (0 if apart is None else bias)
    run = partial(module._conv_forward, bias=None) if isinstance(module, nn.Conv2d) else F.linear
    up, down = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
    positive = x.clamp(min=0)
    negative = x - positive
    rising = run(positive, up) + run(negative, down)
    falling = run(positive, down) + run(negative, up)
    of_rising = rising.detach() + bias + gamma * bias.clamp(min=0)
    of_falling = falling.detach() + bias + gamma * bias.clamp(max=0)
    # At least as far from 0 as z, so that no quotient grows.
    ratio = torch.where(z == 0, 0, z / torch.where(z > 0, of_rising, torch.where(z < 0, of_falling, 1)))
    return _same_forward(output, ratio * torch.where(z > 0, rising, falling))


def _stop(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach()


def _stop_first_half(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    keys, values = output.chunk(2, dim=-1)
    return torch.cat([keys.detach(), values], dim=-1)


def _stop_at(x: Tensor, hook: Any) -> Tensor:
    return x.detach()


def _halve_output(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return _halved(output)


def _halve_at(x: Tensor, hook: Any) -> Tensor:
    return _halved(x)


def _halved(x: Tensor) -> Tensor:
    """The same values with half of the gradient."""
    return x.detach() + 0.5 * (x - x.detach())
