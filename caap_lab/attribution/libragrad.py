"""LibraGrad (Mehri et al., CVPR 2025): a backward pass in which gradient times input is conserved.

The forward pass stays bit-equal. What changes in the backward pass:

- attention: queries and keys are constants, so that gradient flows through the values only;
- LayerNorm and RMSNorm: the standard deviation is a constant;
- an activation function x g(x) (GELU in all forms, SiLU): the gate g is a constant;
- a gated product u v: both factors get half of the gradient;
- L2 normalisation before a zero-shot head: the norm is a constant.

Linear layers, LayerScale, residual sums and mean pooling conserve it as they are. A part that is none of these, say a
module of one's own in the head, is run on its input: if it conserves gradient times input it stays as it is, else it is
refused.

A convolutional stem stands in front of all tokens: gradients of tokens do not meet it, and those of pixels are refused.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from timm.layers import GluMlp, HybridEmbed, SwiGLU
from torch import Tensor, nn

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
from caap_lab.models.base import HookedModel, check_kind
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.running import check_gradients, held
from caap_lab.models.vit import HookedViT

_HOMOGENEOUS = (nn.LeakyReLU, nn.PReLU)
"""Activation functions that conserve gradient times input without a rule."""


@contextmanager
def libragrad(model: HookedModel) -> Iterator[None]:
    """Within this context every gradient of the model follows LibraGrad's rules; forward passes do not change.

    Any gradient method becomes its Libra form: `with cl.libragrad(model): cl.attribute(model, image, "grad_cam")`.
    Contexts may be nested; the rules are applied once. Other threads wait for the model meanwhile.

    Raises:
        InputError: the model has a part whose rule is not known.
    """
    check_kind(model, "libragrad", ("vit", "mixer"))
    check_gradients(model, "libragrad")
    with held(model), _ruled(model):
        yield


@contextmanager
def _ruled(model: HookedModel) -> Iterator[None]:
    if getattr(model, "_libra", False):
        yield
        return
    points: list[tuple[Any, Callable[..., Any]]] = []
    if isinstance(model, HookedViT):
        if any(model.architecture.block(layer).attention.gated for layer in range(model.n_layers)):
            raise InputError("LibraGrad has no rule for gated attention, which this model has.")
        points = [(site.hook, _stopped) for short in ("attn.q", "attn.k") for site in model.find(short)]
    with ExitStack() as stack:
        for name, module in parts(model):
            for rule in _rules(name, module):
                stack.callback(module.register_forward_hook(rule).remove)
        for module in model.modules():
            if isinstance(module, (GluMlp, SwiGLU)):  # what follows the product, and does nothing else
                stack.callback(module.drop1.register_forward_hook(_halve).remove)
        stack.enter_context(model.hooks(fwd_hooks=points))
        model._libra = True  # type: ignore[assignment]
        stack.callback(model.__dict__.pop, "_libra")
        yield


def _rules(name: str, module: nn.Module) -> list[Callable[..., Any]]:
    """What is to be done behind a part, in this order."""
    kind = type(module).__name__
    if runs_as(module, NORMS):
        return [_norm]
    if isinstance(module, ZeroShotHead):
        return [_zero_shot]
    if isinstance(module, HybridEmbed):
        return [_stem]
    if kind in ACTIVATIONS and not is_replaced(module):
        return [_activation]
    if (name.endswith(".act") or is_activation(module)) and not isinstance(module, (nn.Identity, *_HOMOGENEOUS)):
        raise InputError(
            f"LibraGrad has no rule for the activation {kind} in {name}; it has rules for {', '.join(ACTIVATIONS)}."
        )
    rules: list[Callable[..., Any]] = [] if runs_as(module, (*LINEAR, *SILENT)) else [_check(name)]
    if name.endswith("attn_pool.q"):
        rules.append(_stop)
    if name.endswith("attn_pool.kv"):
        rules.append(_stop_first_half)
    return rules


def _check(name: str) -> Callable[..., None]:
    """A hook that refuses a part which does not conserve gradient times input; it looks once."""
    checked: list[bool] = []

    def check(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not checked:
            constant_part("LibraGrad", name, module, inputs)
            checked.append(True)

    return check


def _same_forward(output: Tensor, libra: Tensor) -> Tensor:
    """The output's values with the other's gradient."""
    return output.detach() + (libra - libra.detach())


def _norm(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps  # torch's RMSNorm leaves it to the format
    if isinstance(module, nn.LayerNorm):
        centred = wide - wide.mean(-1, keepdim=True)
        size = (wide.detach().var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    else:
        centred = wide
        size = (wide.detach().square().mean(-1, keepdim=True) + eps).sqrt()
    libra = centred / size
    if module.weight is not None:
        libra = libra * module.weight
    if getattr(module, "bias", None) is not None:
        libra = libra + module.bias  # the bias keeps its gradient: completeness counts it
    return _same_forward(output, libra.to(output.dtype))


def _activation(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    gate = torch.where(x == 0, torch.full_like(x, 0.5), output / x).detach()
    return _same_forward(output, x * gate)


def _zero_shot(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    assert isinstance(module, ZeroShotHead)
    unit = x / x.detach().norm(dim=-1, keepdim=True)
    return _same_forward(output, module.logit_scale * unit @ module.text_embeddings.T)


def _stem(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return _NoWayBack.apply(output)


class _NoWayBack(torch.autograd.Function):
    """A convolutional stem stands in front of all tokens: only gradients of pixels go back through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise InputError(
            "LibraGrad has no rules for this model's convolutional stem (vit.patch_embed), through which gradients of "
            "pixels go. Take a method that reads tokens, such as libra_ixg_plus."
        )


def _stop(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach()


def _stop_first_half(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    keys, values = output.chunk(2, dim=-1)
    return torch.cat([keys.detach(), values], dim=-1)


def _stopped(x: Tensor, hook: Any) -> Tensor:
    return x.detach()


def _halve(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach() + 0.5 * (output - output.detach())
