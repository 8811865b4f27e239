"""The contribution of every bias to a score: the bias times the gradient at the place where it is added."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.attribution.activations_and_gradients import differentiable, differentiate, stream_hooks
from caap_lab.attribution.model_parts import LINEAR, NORMS, SILENT, constant_part, is_activation, parts, runs_as
from caap_lab.models.base import HookedModel
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

POSITIONS = "vit.attn_pool.pos_embed"
"""Attention pooling may add its own positions, which are biases of tokens."""


@dataclass(frozen=True)
class BiasTerm:
    """The products b dy/db of one bias, at each place where it is added."""

    name: str
    """Full name of the module that adds it, or `POSITIONS`."""
    block: int
    """The block that it belongs to: n_layers after the last."""
    products: Float[Tensor, "batch *place channel"]
    """Bias times gradient in the shape of the module's output; [batch, token, channel] for most within blocks."""


def read_biases(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    first_term: str = "entering_block",
) -> tuple[Float[Tensor, "batch classes"], list[Float[Tensor, "batch token d_model"]], list[BiasTerm]]:
    """Logits, h^l dy/dh^l for the stream h^l entering every block l, and the terms of all biases from block 0 on.

    One forward and one backward pass.

    Args:
        model: A Vision Transformer or a Mixer.
        images: Preprocessed images.
        targets: What is explained in each image.
        first_term: Where h^0 is read, see `activations_and_gradients.FIRST_TERMS`. If it is read before a norm, its
            gradient passes that norm, whose bias then counts as one of block 0.
    """
    hooks = stream_hooks(model, first_term)
    entering: list[Tensor] = []
    added: list[tuple[str, Tensor, Tensor]] = []
    apart = model.architecture.biases_apart() if isinstance(model, HookedViT) else {}

    def enter(x: Tensor, hook: Any) -> Tensor:
        entering.append(differentiable(x))
        return entering[-1]

    def part(name: str, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return constant_part("FullGrad+", name, module, inputs) + apart.get(module, 0)

    def note(name: str, bias: Tensor | None) -> Callable[..., Tensor]:
        def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            constant = part(name, module, inputs) if bias is None else bias
            added.append((name, constant, differentiable(output)))
            return added[-1][-1]

        return keep

    def keep_positions(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        added.append((POSITIONS, model.get_parameter(POSITIONS), differentiable(inputs[0])))
        return added[-1][-1]

    with ExitStack() as stack:
        for name, module, bias in _owners(model, apart, with_norm_pre=hooks[0] == "hook_full_embed"):
            # LibraGrad cuts the gradient of queries and keys after a linear layer, so its output is read before that;
            # LibraGrad replaces the output of a norm, through which the bias's gradient goes.
            handle = module.register_forward_hook(note(name, bias), prepend=not runs_as(module, NORMS))
            stack.callback(handle.remove)
        if POSITIONS in dict(model.named_parameters()):
            keys = model.get_submodule("vit.attn_pool.kv")  # it reads the tokens with positions added
            stack.callback(keys.register_forward_pre_hook(keep_positions).remove)
        stack.enter_context(model.hooks(fwd_hooks=[(name, enter) for name in hooks]))
        logits, gradients = differentiate(
            model, images, targets, lambda: [*entering, *(output for _, _, output in added)]
        )
    with torch.no_grad():
        streams = [h * gradient for h, gradient in zip(entering, gradients[: len(entering)], strict=True)]
        terms = [
            BiasTerm(name, max(0, block_of(name, model.n_layers)), bias * gradient)
            for (name, bias, _), gradient in zip(added, gradients[len(entering) :], strict=True)
        ]
    return logits, streams, terms


def block_of(name: str, n_layers: int) -> int:
    """The block that a module belongs to: -1 before the first block, n_layers after the last."""
    _, *inside = name.split(".")  # "vit.blocks.3.norm1", "mixer.stem.proj", "head"
    if inside[:1] == ["blocks"]:
        return int(inside[1])
    return -1 if inside and inside[0] in ("patch_embed", "norm_pre", "stem") else n_layers


def _owners(
    model: HookedModel, apart: Mapping[nn.Module, Tensor], with_norm_pre: bool
) -> Iterator[tuple[str, nn.Module, Tensor | None]]:
    """Modules that add something; None for the bias of a module that has to be run to know what it adds."""
    for name, module in parts(model):
        if block_of(name, model.n_layers) < 0 and not (with_norm_pre and name == "vit.norm_pre"):
            continue
        if runs_as(module, (*LINEAR, *NORMS)):
            bias = apart.get(module, getattr(module, "bias", None))
            if bias is not None:
                yield name, module, bias
        elif not (runs_as(module, SILENT) or isinstance(module, ZeroShotHead) or is_activation(module)):
            yield name, module, None
