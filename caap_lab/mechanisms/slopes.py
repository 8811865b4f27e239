"""Gradients of targets' scores at hook points, for first-order estimates of the effects of patches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import differentiable
from caap_lab.models.vit import HookedViT


class Slopes(NamedTuple):
    """One run of some images, with gradients."""

    logits: Float[Tensor, "batch columns"]
    activations: dict[str, Tensor]
    """Activations by full name of the hook point."""
    gradients: list[dict[str, Tensor]]
    """Gradients by full name for each target; zero if its score does not depend on an activation."""


def read_slopes(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    hooks: Sequence[str],
    read: Callable[[Float[Tensor, "batch columns"]], Float[Tensor, "batch target"]],
) -> Slopes:
    """Activations, and each target's gradient with respect to them: one forward pass, one backward pass per target.

    The gradients of the model's parameters are not changed.

    Args:
        model: The model.
        images: Preprocessed images.
        hooks: Full names of hook points.
        read: Computes the targets' scores from logits; images must not depend on each other.
    """
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> Tensor:
        kept[hook.name] = differentiable(x)
        return kept[hook.name]

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits = model(images)
        scores = read(logits).sum(dim=0)
        inputs = [kept[name] for name in hooks]
        gradients = []
        for number, score in enumerate(scores):
            more = number + 1 < len(scores)
            slopes = torch.autograd.grad(score, inputs, retain_graph=more, allow_unused=True)
            pairs = zip(hooks, slopes, inputs, strict=True)
            gradients.append({name: torch.zeros_like(x) if g is None else g for name, g, x in pairs})
    return Slopes(logits.detach(), {name: x.detach() for name, x in kept.items()}, gradients)
