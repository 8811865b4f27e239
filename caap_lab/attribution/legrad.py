"""LeGrad (Bousselham et al. 2025, ICCV, arXiv 2404.03214): gradients of each layer's score by its attention.

Every layer's output is read as if the model ended there. The gradient of that score with respect to the layer's
attention shows where more attention would increase it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import (
    block_hooks,
    differentiable,
    differentiable_scores,
    on_grid,
)
from caap_lab.attribution.method import method
from caap_lab.checks import check_choice, first_block
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

CLASS_TOKENS = ("mean", "own")


def legrad(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
    class_token: str = "mean",
) -> Float[Tensor, "batch row col"]:
    """Sum over blocks l >= start_layer of mean_{h,q} ReLU(ds^l/dA^l_{h,q,t}), heads h, queries q, tokens t.

    s^l is the target's score of block l's output, read by the final norm and the head as if it were the last block's.
    With attention pooling (SigLIP), A^l is the attention of the pooling on block l's output, otherwise that of block l.
    The authors' code does the same, but leaves out the norm before the pooling.

    There are two options for a head that reads class tokens (or a distillation token):

    - class_token="mean": the mean over all tokens, taken before the norm, replaces the class token, as in the authors'
      code for CLIP. All rows of the attention have a gradient.
    - class_token="own": the class token itself, with which s^l of the last block is the model's own score. Only its row
      of the attention has a gradient, so the map shows what this token reads.

    The first is the default, because the authors use it and its maps are on objects more often. For heads that read
    only patches both are the same. A head that reads class tokens of several blocks (DINOv2's) gets those of block l
    and of the blocks before it, and what enters block 0 where there are none.

    The paper sums over all layers; the authors' code by default over the last two, `start_layer=-2`. Its min-max
    scaling to 0..1 is left out, and so is its correction for SigLIP, which sets cells to 0 that an empty prompt also
    highlights.

    One forward pass, and one backward pass for all layers together: the stream is cut between blocks, so that each
    score goes back through its own block.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        start_layer: First block of the sum; a negative number counts from the end.
        class_token: "mean" or "own".
    """
    check_choice("class_token", class_token, CLASS_TOKENS)
    start_layer = first_block(model.n_layers, start_layer)
    pools = model.readout.attention is not None
    patterns: list[Tensor] = []

    def keep(pattern: Tensor, hook: Any) -> Tensor:
        patterns.append(differentiable(pattern))
        return patterns[-1]

    def cut(stream: Tensor, hook: Any) -> Tensor:
        return stream.detach()

    own = ["attn_pool.hook_pattern"] if pools else block_hooks(model, "attn.pattern")[start_layer:]
    hooks: list[tuple[Any, Any]] = [(name, cut) for name in block_hooks(model, "resid_pre")[start_layer:]]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks + [(name, keep) for name in own]):
        streams = _streams(model, images, model.n_layers if pools else start_layer)
        logits = [_read(model, streams, layer, class_token) for layer in range(start_layer, model.n_layers)]
        # Images and layers are independent, so each gets its own gradient.
        total = torch.stack([differentiable_scores(targets, of_layer) for of_layer in logits]).sum()
        gradients = torch.autograd.grad(total, patterns)
    return on_grid(model, torch.stack([gradient.relu().mean((1, 2)) for gradient in gradients]).sum(0))


def _streams(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], start_layer: int
) -> list[Float[Tensor, "batch token d_model"]]:
    """The streams entering block 0 and leaving each block; with gradients from `start_layer` on."""
    with torch.no_grad():
        streams = [model.embed(images)]
    for layer in range(model.n_layers):
        with torch.set_grad_enabled(layer >= start_layer):
            streams.append(model.run_block(layer, streams[-1]))
    return streams


def _read(
    model: HookedViT, streams: Sequence[Float[Tensor, "batch token d_model"]], layer: int, class_token: str
) -> Float[Tensor, "batch columns"]:
    """Logits from the stream leaving a block, as if it were the last."""
    spec, stream = model.spec, streams[layer + 1]
    before = [streams[max(0, layer + 1 - back)].detach() for back in range(model.class_layers - 1, 0, -1)]
    reads_class_token = model.readout.attention is None and (spec.pool == "cls+mean" or not spec.reads_patches)
    if class_token == "own" or not reads_class_token:
        return model.unembed(stream, [tokens[:, 0] for tokens in before])
    mean = stream.mean(dim=1, keepdim=True).expand(-1, spec.n_prefix, -1)
    return model.unembed(torch.cat([mean, stream[:, spec.n_prefix :]], dim=1), [x.mean(dim=1) for x in before])


LEGRAD = method(
    legrad,
    name="legrad",
    family="gradient",
    source="LeGrad, Bousselham et al. 2025, ICCV, arXiv 2404.03214",
    needs="gradient, attention",
    sign="positive",
    forwards=1,
    backwards=1,
)
