"""One run that records what is added to the residual stream, and the parts of its embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.models.device_dtype import widened
from caap_lab.models.names import short_name
from caap_lab.models.vit import HookedViT

_ALL_TOKENS = ("embed", "full_embed", "attn.v")
"""Points recorded at all tokens, whichever tokens are chosen."""
NORM_PRE_BIAS = "vit.norm_pre.bias"


@dataclass(frozen=True)
class StreamRun:
    """Activations recorded in a run, at some tokens (rows)."""

    kept: dict[str, Tensor]
    """Activations by full hook name."""
    resid: Float[Tensor, "batch token d_model"]
    """The stream after the last block that ran, at all tokens."""
    class_tokens: list[Float[Tensor, "batch d_model"]]
    """Class tokens of earlier blocks that the head reads."""

    def at(self, layer: int, point: str) -> Tensor:
        """The activation recorded at a point of a block, such as "hook_attn_out"."""
        return self.kept[f"blocks.{layer}.{point}"]


def run_stream(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], names: Sequence[str], rows: list[int], layers: int
) -> StreamRun:
    """Run the first blocks of a model and record activations.

    Args:
        model: The model.
        images: Preprocessed images.
        names: Full hook names.
        rows: Tokens to record; values and embeddings are recorded for all.
        layers: Number of blocks.
    """
    kept: dict[str, Tensor] = {}
    every = rows == list(range(model.spec.n_tokens))

    def keep(activation: Tensor, hook: HookPoint) -> None:
        short = short_name(str(hook.name))
        if not every and short not in _ALL_TOKENS:
            activation = activation[:, :, rows] if short == "attn.pattern" else activation[:, rows]
        kept[str(hook.name)] = activation.detach()

    hooks: list[tuple[Any, Any]] = [(name, keep) for name in ("hook_embed", "hook_full_embed", *names)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        resid, class_tokens = model.run_blocks(model.embed(images), range(layers))
    return StreamRun(kept, resid, class_tokens)


def block_points(layers: int, *points: str) -> list[str]:
    """Full names of some points of the first blocks."""
    return [f"blocks.{layer}.{point}" for layer in range(layers) for point in points]


@torch.no_grad()
def embedding_parts(model: HookedViT, run: StreamRun) -> dict[str, Float[Tensor, "#batch token d_model"]]:
    """The input of the norm before the blocks, or of block 0 without such a norm, as parts that add up to it.

    The embeddings of the patches, the position embeddings added to them, and prefix tokens with their positions.
    """
    embed, full = run.kept["hook_embed"], run.kept["hook_full_embed"]
    constant = model.architecture.add_positions(torch.zeros_like(embed[:1]))
    is_prefix = torch.arange(constant.shape[1], device=constant.device)[:, None] < model.spec.n_prefix
    positions = constant.masked_fill(is_prefix, 0)
    parts = {"patch embedding": full - constant}
    if positions.any():
        parts["positions"] = positions
    if model.spec.n_prefix:
        parts["prefix tokens"] = constant.masked_fill(~is_prefix, 0)
    return parts


def as_array(x: Float[Tensor, "..."]) -> Float[np.ndarray, "..."]:
    """A tensor as an array, in at least float32."""
    return widened(x.detach()).cpu().numpy()


Step = Callable[[Tensor], Tensor]


def pulled_back(step: Step, x: Tensor, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Gradients with respect to the input x of a step, one for each gradient with respect to its output."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = step(leaf)
    return [torch.autograd.grad(y, leaf, gradient, retain_graph=True)[0] for gradient in gradients]


def pushed_forward(step: Step, x: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Parts of x after a step that is linear around x, by differentiating its gradient, which is linear too."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        y = step(leaf)
        weight = torch.zeros_like(y).requires_grad_()
        (gradient,) = torch.autograd.grad(y, leaf, weight, create_graph=True)
        each = [part.expand_as(leaf).contiguous() for part in parts]
        return [torch.autograd.grad(gradient, weight, part, retain_graph=True)[0] for part in each]
