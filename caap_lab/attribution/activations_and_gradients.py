"""Activations of the model, with or without gradients of the targets' scores."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.checks import check_choice
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def read_activations(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], hooks: Sequence[str]
) -> tuple[Float[Tensor, "batch classes"], list[Float[Tensor, "batch ..."]]]:
    """Logits and the activations at some hook points (full names), in their order, without gradients."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x

    with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits = model(images)
    return logits, [kept[name] for name in hooks]


def read_gradients(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    hooks: Sequence[str],
    score: str = "logit",
) -> tuple[Float[Tensor, "batch classes"], list[Float[Tensor, "batch ..."]], list[Float[Tensor, "batch ..."]]]:
    """Activations at some hook points, and the gradients of each image's target score with respect to them.

    One forward and one backward pass. The gradients of the model's parameters are left as they are.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        hooks: Full names of hook points.
        score: "logit", the target's value; or "prob", its probability.

    Returns:
        Logits; the activations; the gradients, zero where the score does not depend on one.
    """
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> Tensor:
        kept[hook.name] = differentiable(x)
        return kept[hook.name]

    with model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits, gradients = differentiate(model, images, targets, lambda: [kept[name] for name in hooks], score)
    return logits, [kept[name].detach() for name in hooks], gradients


def read_layer(
    model: BlackBoxModel, images: Float[Tensor, "batch 3 height width"], layer: str
) -> Float[Tensor, "batch channel row col"]:
    """The maps of a black box's layer, without gradients."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.no_grad(), model.edited_layer(layer, keep):
        model(images)
    return model.map_form(layer).as_maps(kept[0])


def read_layer_gradients(
    model: BlackBoxModel, images: Float[Tensor, "batch 3 height width"], targets: Targets, layer: str
) -> tuple[Float[Tensor, "batch channel row col"], Float[Tensor, "batch channel row col"]]:
    """The maps of a black box's layer, and the gradients of each image's target logit with respect to them."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(differentiable(x))
        return kept[-1]

    with model.edited_layer(layer, keep):
        _, (gradient,) = differentiate(model, images, targets, lambda: kept)
    form = model.map_form(layer)
    return form.as_maps(kept[0].detach()), form.as_maps(gradient)


def differentiable(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A copy of an activation to differentiate with respect to; a hook returns it instead of `x`."""
    # A separate view, so that it works if one hook point's output is the input of another.
    kept = x.view_as(x)
    if not kept.requires_grad:  # LibraGrad's attention patterns have no graph
        kept.requires_grad_()
    return kept


def differentiate(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    activations: Callable[[], Sequence[Tensor]],
    score: str = "logit",
) -> tuple[Float[Tensor, "batch classes"], list[Float[Tensor, "batch ..."]]]:
    """Logits, and the gradients of each image's target score with respect to some activations.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        activations: Returns what the model's hooks kept with `differentiable`; called after the forward pass.
        score: "logit", the target's value; or "prob", its probability.

    Raises:
        InputError: a target is a function that torch cannot differentiate.
    """
    with torch.enable_grad():
        logits = model(images.detach().requires_grad_())
        total = differentiable_scores(targets, logits, score).sum()  # images are independent
        inputs = activations()
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    return logits.detach(), [
        torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, gradients, strict=True)
    ]


def differentiable_scores(
    targets: Targets, logits: Float[Tensor, "batch columns"], score: str = "logit"
) -> Float[Tensor, " batch"]:
    """Each image's target score, with its graph; see `differentiate`."""
    scores = targets.value(logits) if score == "logit" else targets.probability(logits)
    if not scores.requires_grad:
        raise InputError(
            f"The target {targets.name!r} has no gradient: torch cannot differentiate it. Use a differentiable "
            "function of the logits, or a method that needs forward passes only."
        )
    return scores


def block_hooks(model: HookedModel, short: str) -> list[str]:
    """Full names of a hook point in all blocks, first block first: "resid_pre", "attn.pattern"."""
    return [site.hook for site in model.find(short)]


FIRST_TERMS = ("before_norm_pre", "entering_block")
"""Where the first term of a sum over blocks is read in a model with a norm before block 0, such as CLIP: before that
norm, like the authors of IxG+ and LibraGrad, or after it. In other models these are the same."""


def stream_hooks(model: HookedModel, first_term: str) -> list[str]:
    """Full names of the hook points of the residual streams entering all blocks; `first_term` is one of FIRST_TERMS."""
    check_choice("first_term", first_term, FIRST_TERMS)
    hooks = block_hooks(model, "resid_pre")
    before = first_term == "before_norm_pre" and has_norm_pre(model)
    return ["hook_full_embed", *hooks[1:]] if before else hooks


def has_norm_pre(model: HookedModel) -> bool:
    """True if there is a norm between the embeddings and block 0."""
    return isinstance(model, HookedViT) and model.architecture.has_norm_pre


def on_grid(model: HookedModel, tokens: Float[Tensor, "batch token *rest"]) -> Float[Tensor, "batch row col *rest"]:
    """Values of all tokens, or of patches only, on the grid of patches, without prefix tokens."""
    rows, cols = model.grid
    return tokens[:, -rows * cols :].unflatten(1, (rows, cols))


def sum_patches(model: HookedModel, pixels: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch row col"]:
    """Values of pixels summed over each patch or cell of the grid.

    Pixels after the last whole patch, which no model reads, are left out.
    """
    (rows, cols), (height, width) = model.grid, model.patch_size
    return pixels[:, : rows * height, : cols * width].reshape(-1, rows, height, cols, width).sum((2, 4))
