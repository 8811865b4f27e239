"""AttnLRP (Achtibat et al. 2024, ICML, arXiv 2402.05602): layer-wise relevance propagation through attention.

Implemented as input times gradient under changed backward rules, as in the authors' library LXT: the result is the
relevance if every rule distributes the relevance of an output among its inputs.
"""

from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import (
    differentiable,
    differentiable_scores,
    on_grid,
    sum_patches,
)
from caap_lab.attribution.backward_rules import Rules, ruled
from caap_lab.attribution.method import method
from caap_lab.checks import check_choice, is_number
from caap_lab.errors import InputError
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

RULES = ("attn_lrp", "cp_lrp")
PLACES = ("embedding", "pixels")


def attn_lrp(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    rules: str = "attn_lrp",
    gamma: float = 0.0,
    patch_gamma: float = 0.0,
    at: str = "embedding",
) -> Float[Tensor, "batch row col"]:
    """Sum over channels of x dy/dx at the patch embeddings x, under LRP's backward rules; signed.

    The rules (the paper's equations 8 to 15, with epsilon -> 0):

    - norms divide by a constant; an activation function has output / input as its gradient;
    - linear layers keep their gradient, or use the gamma rule;
    - products of two variables (gates; with rules="attn_lrp" queries times keys, and pattern times values) give each
      factor half of the gradient; the softmax keeps its gradient;
    - with rules="cp_lrp" (Ali et al. 2022, ICML) attention patterns are constants, and values get all of the gradient.
      With gamma=0 these are LibraGrad's rules.

    Relevance is conserved except for the parts of biases and, with rules="attn_lrp", of each softmax. The learned
    queries of a pooling head are constants.

    For vision transformers the authors' library uses "cp_lrp" in attention with gamma rules on linear layers and on the
    patch convolution, and tries gammas of 0 to 1 and 0.1, 0.25 and 100: it calls that easier to tune. In torchvision's
    model, for which it is written, the gamma rule does not reach the projections of attention; here it applies to all
    linear layers. The default is the paper's rules with nothing to tune; on photos gamma=0.25 is far better.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        rules: Rules inside attention: "attn_lrp" or "cp_lrp".
        gamma: Parameter of the gamma rule in linear layers, which adds gamma times the terms with the output's sign; 0
            to keep the gradient.
        patch_gamma: The same for the patch convolution, which relevance passes with at="pixels".
        at: "embedding", patch embeddings before positions; or "pixels", summed over each patch.

    Raises:
        InputError: there is no rule for a part of the model; see `caap_lab.attribution.backward_rules`.
    """
    check_choice("rules", rules, RULES)
    check_choice("at", at, PLACES)
    for name, value in (("gamma", gamma), ("patch_gamma", patch_gamma)):
        if not is_number(value) or not isfinite(value) or value < 0:
            raise InputError(f"{name}={value!r} must be a number of at least 0.")
    if patch_gamma and at != "pixels":
        raise InputError("patch_gamma applies to the patch convolution; it needs at='pixels'.")
    constant = rules == "cp_lrp"
    with ruled(model, Rules("CP-LRP" if constant else "AttnLRP", constant, float(gamma), float(patch_gamma))):
        x, gradient = _read(model, images, targets, at)
    if at == "pixels":
        return sum_patches(model, (x * gradient).sum(1))
    return on_grid(model, (x * gradient).sum(-1))


def _read(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], targets: Targets, at: str
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Pixels or patch embeddings, and the gradient of each image's score there."""
    read: list[Tensor] = []

    def keep(x: Tensor, hook: Any = None) -> Tensor:
        read.append(differentiable(x.detach() if at == "pixels" else x))
        return read[-1]

    hooks: list[tuple[Any, Any]] = [] if at == "pixels" else [("hook_embed", keep)]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(keep(images) if at == "pixels" else images)
        (gradient,) = torch.autograd.grad(differentiable_scores(targets, logits).sum(), read)  # images are independent
    return read[0].detach(), gradient


ATTN_LRP = method(
    attn_lrp,
    name="attn_lrp",
    family="relevance",
    source="AttnLRP, Achtibat et al. 2024, ICML, arXiv 2402.05602",
    needs="gradient, relevance",
    sign="signed",
    forwards=1,
    backwards=1,
)
