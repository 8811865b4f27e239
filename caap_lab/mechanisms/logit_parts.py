"""The contribution of each part of a model to the scores of a batch, from one run and the head's gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.mechanisms.frozen import frozen_scales
from caap_lab.mechanisms.linear_readout import LinearReadout, read_linearly
from caap_lab.mechanisms.stream_parts import (
    NORM_PRE_BIAS,
    StreamRun,
    block_points,
    embedding_parts,
    pulled_back,
    run_stream,
)
from caap_lab.models.block import BlockPoints
from caap_lab.models.explained import predicted_targets
from caap_lab.models.moved_neurons import some_rows
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

_WHOLE = ("hook_attn_out", "hook_mlp_out")
_POINTS = {
    "component": _WHOLE,
    "head": (*_WHOLE, "ln1.hook_normalized", "attn.hook_z"),
    "token": (*_WHOLE, "ln1.hook_normalized", "attn.hook_z", "attn.hook_v", "attn.hook_pattern"),
    "neuron": (*_WHOLE, "ln2.hook_normalized", "mlp.hook_post"),
}


@dataclass(frozen=True)
class LogitParts:
    """The contributions of the parts for a batch; the last axis is the target."""

    score: Float[Tensor, "batch target"]
    """The targets' scores, as the model computes them."""
    components: dict[str, Float[Tensor, "batch target"]]
    """Parts that are not split further."""
    layers: Float[Tensor, "batch layer ... target"] | None
    """[batch, layer, head], [batch, layer, head, token] or [batch, layer, neuron], followed by the target."""

    def require_sum(self) -> None:
        """Raise InputError if the parts do not add up to the score, so that wrong numbers are never returned.

        Raises:
            InputError: the model reads the stream in a way that is not linear, or a hook of the user edits it between
                the parts.
        """
        each = torch.stack(list(self.components.values()))
        total, size = each.sum(dim=0), each.abs().sum(dim=0)
        if self.layers is not None:
            over = tuple(range(1, self.layers.ndim - 1))
            total, size = total + self.layers.sum(over), size + self.layers.abs().sum(over)
        off = ((total - self.score).abs() / size.clamp(min=1e-12)).max()
        if not off <= torch.finfo(self.score.dtype).eps ** 0.5:
            raise InputError(
                f"The contributions do not add up to the score (off by {float(off):.2g} of the parts' sizes): the "
                "model's head is not linear in the stream, or a hook on the model edits the stream between its parts. "
                "Remove hooks (model.reset_hooks()), or use a linear head."
            )


def logit_parts(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], several: Sequence[Targets] | None, by: str
) -> tuple[LogitParts, list[Targets]]:
    """Split the scores of a batch into the contributions of parts.

    Args:
        model: The model.
        images: Preprocessed images.
        several: Targets of these images; None for the model's own prediction.
        by: A key of `_POINTS`.

    Returns:
        The parts, and the targets.
    """
    rows = list(model.spec.read_tokens)
    if model.class_layers > 1 and 0 not in rows:
        rows = [0, *rows]
    run = run_stream(model, images, block_points(model.n_layers, *_POINTS[by]), rows, model.n_layers)
    if several is None:
        with torch.no_grad():
            several = [predicted_targets(model, model.unembed(run.resid, run.class_tokens))]
    readouts = read_linearly(model, run.resid, run.class_tokens, several)
    components = _embeddings(model, run, readouts, rows)
    layers: list[Tensor] = []
    with frozen_scales(model):
        for layer in range(model.n_layers):
            weights = [readout.weights(model, layer, rows) for readout in readouts]
            whole = {
                "attn": _products(run.at(layer, "hook_attn_out"), weights),
                "mlp": _products(run.at(layer, "hook_mlp_out"), weights),
            }
            if by != "component":
                split = "mlp" if by == "neuron" else "attn"
                layers.append(_INSIDE[by](model, run, layer, weights))
                inside = layers[-1].sum(dim=tuple(range(1, layers[-1].ndim - 1)))
                whole[split] = whole[split] - inside
                names = {kind: f"{kind} {layer}{' bias' * (kind == split)}" for kind in whole}
            else:
                names = {kind: f"{kind} {layer}" for kind in whole}
            components |= {names[kind]: whole[kind] for kind in whole}
    for name in dict.fromkeys(name for readout in readouts for name in readout.constants):
        none = torch.zeros_like(readouts[0].value)
        components[name] = torch.stack([readout.constants.get(name, none) for readout in readouts], dim=-1)
    score = torch.stack([readout.value for readout in readouts], dim=-1)
    parts = LogitParts(score, components, torch.stack(layers, dim=1) if layers else None)
    parts.require_sum()
    return parts, list(several)


def _products(
    part: Float[Tensor, "#batch row d_model"], weights: Sequence[Float[Tensor, "batch row d_model"]]
) -> Float[Tensor, "batch target"]:
    return torch.stack([(part * weight).sum(dim=(1, 2)) for weight in weights], dim=-1)


def _embeddings(
    model: HookedViT, run: StreamRun, readouts: Sequence[LinearReadout], rows: list[int]
) -> dict[str, Float[Tensor, "batch target"]]:
    """Contributions of embeddings, through the norm before the blocks if there is one."""
    parts = embedding_parts(model, run)
    full = run.kept["hook_full_embed"]
    entering = [torch.zeros_like(full) for _ in readouts]
    for weight, readout in zip(entering, readouts, strict=True):
        weight[:, rows] = readout.weights(model, -1, rows)
    weights = entering
    if model.architecture.has_norm_pre:
        with frozen_scales(model):
            weights = pulled_back(model.architecture.before_blocks, full, entering)
    found = {name: _products(part, weights) for name, part in parts.items()}
    if model.architecture.has_norm_pre:
        with torch.no_grad():
            after = model.architecture.before_blocks(full)
        found[NORM_PRE_BIAS] = _products(after, entering) - torch.stack(list(found.values())).sum(dim=0)
    return found


def _through_output(model: HookedViT, run: StreamRun, layer: int, weights: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of the score with respect to the outputs of the heads, [batch, row, head, d_head]."""
    block, normalized = model.architecture.block(layer), run.at(layer, "ln1.hook_normalized")

    def output(z: Tensor) -> Tensor:
        return block.scale_attention(block.attention.output(z.transpose(1, 2), normalized))

    return pulled_back(output, run.at(layer, "attn.hook_z"), weights)


def _heads(
    model: HookedViT, run: StreamRun, layer: int, weights: Sequence[Tensor]
) -> Float[Tensor, "batch head target"]:
    z = run.at(layer, "attn.hook_z")
    return torch.stack([(z * of_z).sum(dim=(1, 3)) for of_z in _through_output(model, run, layer, weights)], dim=-1)


def _tokens(
    model: HookedViT, run: StreamRun, layer: int, weights: Sequence[Tensor]
) -> Float[Tensor, "batch head token target"]:
    """Pattern times value, one source token at a time."""
    values, pattern = run.at(layer, "attn.hook_v"), run.at(layer, "attn.hook_pattern")
    found = [
        (pattern * torch.einsum("bshd,brhd->bhrs", values, of_z)).sum(dim=2)
        for of_z in _through_output(model, run, layer, weights)
    ]
    return torch.stack(found, dim=-1)


def _neurons(
    model: HookedViT, run: StreamRun, layer: int, weights: Sequence[Tensor]
) -> Float[Tensor, "batch neuron target"]:
    """Runs the MLP again on the tokens that count; gradients start at the recorded neurons."""
    block, points = model.architecture.block(layer), cast(BlockPoints, model.blocks[layer]).mlp
    post = run.at(layer, "mlp.hook_post").requires_grad_()
    replaced = [(f"blocks.{layer}.mlp.hook_post", lambda x, hook: post)]
    with torch.enable_grad(), some_rows(), model.hooks(fwd_hooks=replaced):
        out = block.scale_mlp(block.mlp(points, run.at(layer, "ln2.hook_normalized")))
    gradients = [torch.autograd.grad(out, post, weight, retain_graph=True)[0] for weight in weights]
    return torch.stack([(post.detach() * gradient).sum(dim=1) for gradient in gradients], dim=-1)


_INSIDE: dict[str, Callable[[HookedViT, StreamRun, int, Sequence[Tensor]], Tensor]] = {
    "head": _heads,
    "token": _tokens,
    "neuron": _neurons,
}
