"""Norm scales fixed at their values for an image, so that what follows them is linear in its input."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from caap_lab.attribution.model_parts import SILENT, constant_part, is_activation, parts, runs_as
from caap_lab.errors import InputError
from caap_lab.models.attention_pool import PoolingAttention
from caap_lab.models.head_results import frozen_norm, is_norm
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.vit import HookedViT

_BEFORE_NEURONS = (".fc1", ".fc1_g", ".fc1_x", ".act", ".drop1", ".gate")
"""Steps inside a block that run, but through which no contribution is propagated back."""


class Added(NamedTuple):
    """A term that a step adds and that does not depend on the tokens, or is not linear in them."""

    name: str
    constant: Tensor
    """The term; its shape fits the output."""
    output: Tensor
    """The step's output, whose gradient weights the term."""


@contextmanager
def frozen_scales(model: HookedViT, added: list[Added] | None = None) -> Iterator[None]:
    """Context in which gradients treat the scales of norms, and the patterns of attention pooling, as constants.

    Forward passes do not change. Norms are LayerNorm and RMSNorm, and the L2 norm before text embeddings. Subtracting a
    mean is linear and keeps its gradient. A module of an unknown kind is run on its input and accepted if it is linear.
    The MLP after a pooling head's attention is not linear: its output is treated as a constant.

    Args:
        model: The model.
        added: Receives the terms added by biases of the modules that run, and the output of a pooling head's MLP.

    Raises:
        InputError: raised during a run, by a module that is not linear.
    """
    notes: list[Added] = [] if added is None else added
    pooling = model.readout.attention
    with ExitStack() as stack:
        for name, module in _parts(model, pooling):
            for rule in _rules(name, module, notes):
                stack.callback(module.register_forward_hook(rule).remove)
        if pooling is not None:
            stack.enter_context(model.hooks(fwd_hooks=[("attn_pool.hook_pattern", lambda x, hook: x.detach())]))
            if pooling.mlp is not None:
                stack.callback(pooling.mlp.register_forward_hook(_as_leaf("vit.attn_pool.mlp", notes)).remove)
            if model.readout.adds_positions:
                handle = pooling.pool.kv.register_forward_pre_hook(_positions(pooling, notes))
                stack.callback(handle.remove)
        yield


def _parts(model: HookedViT, pooling: PoolingAttention | None) -> Iterator[tuple[str, nn.Module]]:
    """The model's smallest modules; a known pooling is split, except for its MLP, which is a constant."""
    inside = set() if pooling is None or pooling.mlp is None else set(pooling.mlp.modules())
    for name, module in parts(model):
        if pooling is not None and module is pooling.pool:
            yield from ((f"{name}.{child}", part) for child, part in module.named_children() if part not in inside)
        elif module not in inside:
            yield name, module


def _rules(name: str, module: nn.Module, notes: list[Added]) -> list[Callable[..., Any]]:
    if is_norm(module):
        return [_norm(name, notes)]
    if isinstance(module, ZeroShotHead):
        return [_zero_shot]
    if runs_as(module, (nn.Linear,)):
        return [] if module.bias is None else [_note(name, notes)]
    if runs_as(module, SILENT) or (".blocks." in name and name.endswith(_BEFORE_NEURONS)):
        return []
    return [_unknown(name, notes)]


def _norm(name: str, notes: list[Added]) -> Callable[..., Tensor]:
    def rule(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = inputs
        frozen = frozen_norm(module, x.detach())(x).to(output.dtype)
        output = output.detach() + (frozen - frozen.detach())
        if getattr(module, "bias", None) is not None:
            notes.append(Added(f"{name}.bias", module.bias.detach(), output))
        return output

    return rule


def _zero_shot(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    frozen = module.logit_scale * (x / x.detach().norm(dim=-1, keepdim=True)) @ module.text_embeddings.T
    return output.detach() + (frozen - frozen.detach())


def _note(name: str, notes: list[Added]) -> Callable[..., None]:
    def rule(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        notes.append(Added(f"{name}.bias", module.bias.detach(), output))

    return rule


def _unknown(name: str, notes: list[Added]) -> Callable[..., None]:
    def rule(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        try:
            if is_activation(module):
                raise _not_linear(name, module)
            constant = constant_part("", name, module, inputs)
        except InputError:
            raise _not_linear(name, module) from None
        with torch.no_grad():
            mirrored = module.forward(-inputs[0][:1]) + output[:1]  # gradient times input adds up for a ReLU, too
        if (mirrored - 2 * constant).norm() > torch.finfo(output.dtype).eps ** 0.5 * output[:1].norm():
            raise _not_linear(name, module)
        if constant.any():
            notes.append(Added(f"{name} of zero", constant, output))

    return rule


def _not_linear(name: str, module: nn.Module) -> InputError:
    return InputError(
        f"{type(module).__name__} in {name} is not linear, so the score cannot be split into the contributions of the "
        "parts before it. Linear layers, norms (with fixed scale), text embeddings and attention pooling work. "
        "Use a method that does not need a linear head, such as caap, or patch the parts (cl.sweep)."
    )


def _as_leaf(name: str, notes: list[Added]) -> Callable[..., Tensor]:
    def rule(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(torch.is_grad_enabled())
        notes.append(Added(name, leaf.detach(), leaf))
        return leaf

    return rule


def _positions(pooling: PoolingAttention, notes: list[Added]) -> Callable[..., None]:
    """The position embeddings of a pooling, which its keys and values read."""

    def rule(module: nn.Module, inputs: tuple[Tensor]) -> None:
        notes.append(Added("vit.attn_pool.pos_embed", pooling.pool.pos_embed.detach(), inputs[0]))

    return rule
