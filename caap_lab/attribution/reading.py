"""Activations inside the model, with or without the gradient of the targets' scores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caap_lab.hooked.model import HookedViT


def read_activations(model: HookedViT, images: Tensor, hooks: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """Logits [batch, class] and the activations at some hook points (full names), in their order; no gradient."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x

    with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits = model(images)
    return logits, [kept[name] for name in hooks]


def read_gradients(
    model: HookedViT, images: Tensor, targets: Tensor, hooks: Sequence[str], score: str = "logit"
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Activations at some hook points, and the gradients of each image's target score with respect to them.

    One forward and one backward pass. The gradients of the model's parameters are left as they are.

    Args:
        model: The model.
        images: [batch, 3, height, width].
        targets: One class an image.
        hooks: Full names of hook points.
        score: "logit" or "prob" of the target.

    Returns:
        Logits [batch, class]; the activations; the gradients, zero where the score does not depend on one.
    """
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> Tensor:
        # What is differentiated is handed on, so that it counts where one hook point's output is another's.
        kept[hook.name] = x.view_as(x)
        if not kept[hook.name].requires_grad:  # LibraGrad's attention patterns have no graph behind them
            kept[hook.name].requires_grad_()
        return kept[hook.name]

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits = model(images.detach().requires_grad_())
        scores = logits if score == "logit" else logits.softmax(dim=1)
        total = scores.gather(1, targets[:, None]).sum()  # images do not meet, so each gets its own gradient
        activations = [kept[name] for name in hooks]
        gradients = torch.autograd.grad(total, activations, allow_unused=True)
    found = [
        torch.zeros_like(a) if gradient is None else gradient
        for a, gradient in zip(activations, gradients, strict=True)
    ]
    return logits.detach(), [a.detach() for a in activations], found


def block_hooks(model: HookedViT, short: str) -> list[str]:
    """Full names of a hook point in all blocks, first block first: "resid_pre", "attn.pattern"."""
    return [site.hook for site in model.find(short)]


def on_grid(model: HookedViT, tokens: Tensor) -> Tensor:
    """Values of tokens [batch, token] or of patches alone [batch, patch] as [batch, row, col]; prefix tokens go."""
    patches = tokens[:, -model.spec.n_patches :]
    return patches.reshape(len(tokens), *model.spec.grid)


def sum_patches(model: HookedViT, pixels: Tensor) -> Tensor:
    """Values of pixels [batch, height, width] summed over each patch, [batch, row, col].

    Pixels beyond the last whole patch, which no model reads, are left out.
    """
    (rows, cols), (height, width) = model.spec.grid, model.spec.patch_size
    return pixels[:, : rows * height, : cols * width].reshape(-1, rows, height, cols, width).sum((2, 4))
