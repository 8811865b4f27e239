"""LibraGrad (Mehri et al., CVPR 2025): a backward pass in which gradient times input is conserved.

The forward pass stays bit-equal. What changes in the backward pass:

- attention: queries and keys are constants, so that gradient flows through the values only;
- LayerNorm and RMSNorm: the standard deviation is a constant;
- an activation function x g(x) (GELU in all forms, SiLU): the gate g is a constant;
- a gated product u v: both factors get half of the gradient;
- L2 normalisation before a zero-shot head: the norm is a constant.

Linear layers, LayerScale, residual sums and mean pooling conserve it as they are.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from timm.layers import GluMlp, RmsNorm, SwiGLU
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.hooked.base import HookedModel, check_kind
from caap_lab.hooked.heads import ZeroShotHead
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.running import held

_ACTIVATIONS = ("GELU", "GELUTanh", "QuickGELU", "QuickGELUJit", "SiLU", "Swish", "ReLU")


@contextmanager
def libragrad(model: HookedModel) -> Iterator[None]:
    """Within this context every gradient of the model follows LibraGrad's rules; forward passes do not change.

    Any gradient method becomes its Libra form: `with cl.libragrad(model): cl.attribute(model, image, "grad_cam")`.
    Contexts may be nested; the rules are applied once. Other threads wait for the model meanwhile.

    Raises:
        InputError: the model has a part whose rule is not known.
    """
    check_kind(model, "libragrad", ("vit", "mixer"))
    with held(model), _ruled(model):
        yield


@contextmanager
def _ruled(model: HookedModel) -> Iterator[None]:
    if getattr(model, "_libra", False):
        yield
        return
    points: list[tuple[Any, Callable[..., Any]]] = []
    if isinstance(model, HookedViT):
        if any(model.block(layer).attn.gate is not None for layer in range(model.n_layers)):
            raise InputError("LibraGrad has no rule for gated attention, which this model has.")
        points = [(site.hook, _stopped) for short in ("attn.q", "attn.k") for site in model.find(short)]
    with ExitStack() as stack:
        for name, module in model.named_modules():
            rule = _rule(name, module)
            if rule is not None:
                stack.callback(module.register_forward_hook(rule).remove)
            if isinstance(module, (GluMlp, SwiGLU)):  # what follows the product, and does nothing else
                stack.callback(module.drop1.register_forward_hook(_halve).remove)
        stack.enter_context(model.hooks(fwd_hooks=points))
        model._libra = True  # type: ignore[assignment]
        stack.callback(model.__dict__.pop, "_libra")
        yield


def _rule(name: str, module: nn.Module) -> Callable[..., Any] | None:
    kind = type(module).__name__
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm, RmsNorm)):
        return _norm
    if isinstance(module, ZeroShotHead):
        return _zero_shot
    if name.endswith("attn_pool.q"):
        return _stop
    if name.endswith("attn_pool.kv"):
        return _stop_first_half
    if kind in _ACTIVATIONS:
        return _activation
    if name.endswith(".act") and not isinstance(module, nn.Identity):
        raise InputError(f"LibraGrad has no rule for the activation {kind} in {name}.")
    return None


def _same_forward(output: Tensor, libra: Tensor) -> Tensor:
    """The output's values with the other's gradient."""
    return output.detach() + (libra - libra.detach())


def _norm(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if isinstance(module, nn.LayerNorm):
        centred = wide - wide.mean(-1, keepdim=True)
        size = (wide.detach().var(-1, keepdim=True, unbiased=False) + module.eps).sqrt()
    else:
        centred = wide
        size = (wide.detach().square().mean(-1, keepdim=True) + module.eps).sqrt()
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


def _stop(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach()


def _stop_first_half(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    keys, values = output.chunk(2, dim=-1)
    return torch.cat([keys.detach(), values], dim=-1)


def _stopped(x: Tensor, hook: Any) -> Tensor:
    return x.detach()


def _halve(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach() + 0.5 * (output - output.detach())
