"""AtMan: the loss when attention to a token is suppressed (Deiseroth et al. 2023, NeurIPS, arXiv 2301.08110)."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_activations
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, check_share, is_number
from caap_lab.errors import InputError
from caap_lab.models.at_once import images_at_once
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def atman(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    factor: float = 0.1,
    similarity: float = 0.6,
    chunk_size: int = 32,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """CE_c(x with attention to patch t and similar patches suppressed) - CE_c(x), where CE_c = -log p_c.

    In all blocks and heads the scores before the softmax, minus the minimum of their row, are multiplied by f for key
    t, and by f + (1 - f)(1 - cos_tj) for similar patches j: see `suppression`. Attention pooling in the head is not
    changed.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        factor: The factor f; 1 changes nothing.
        similarity: Smallest cosine of embeddings, before positions are added, at which patches are suppressed together;
            1 for exact copies only, up to rounding.
        chunk_size: Patches evaluated at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_share("factor", factor)
    if not is_number(similarity) or not -1 <= similarity <= 1:
        raise InputError(f"similarity={similarity!r} must be a number from -1 to 1, a cosine.")
    check_count("chunk_size", chunk_size)
    found = []
    for image, target in zip(images[:, None], targets, strict=True):
        logits, (embedded, entering) = read_activations(model, image, ["hook_embed", "blocks.0.hook_resid_pre"])
        turned_down = suppression(widened(embedded[0]), factor, similarity).to(entering.dtype)
        losses = []
        for part in turned_down.split(images_at_once(model, chunk_size)):
            hooks = [(name, _turning_down(part)) for name in block_hooks(model, "attn.attn_scores")]
            with model.hooks(fwd_hooks=hooks):
                changed = model(entering.expand(len(part), -1, -1), start_at_layer=0)
            losses.append(-target.probability(changed, probability, log=True))
        found.append(torch.cat(losses) + target.probability(logits, probability, log=True)[0])
    return on_grid(model, torch.stack(found))


def suppression(
    embedded: Float[Tensor, "patch d_model"], factor: float, similarity: float
) -> Float[Tensor, "patch patch"]:
    """Factors of all patches as keys (second axis) when one patch (first axis) is suppressed.

    f + (1 - f)(1 - cos) where cos >= similarity, which is f for the patch itself, and 1 elsewhere. A negative cosine
    counts as 0, so that a negative `similarity` never increases attention.
    """
    unit = F.normalize(embedded, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(1).clamp(max=1)
    return torch.where(cosine >= similarity, factor + (1 - factor) * (1 - cosine.clamp(min=0)), 1)


def _turning_down(factors: Float[Tensor, "choice patch"]) -> Callable[[Tensor, Any], Tensor]:
    def turn_down(scores: Tensor, hook: Any) -> Tensor:
        prefix = scores.shape[-1] - factors.shape[-1]
        of_keys = F.pad(factors, (prefix, 0), value=1)[:, None, None]
        return (scores - scores.amin(dim=-1, keepdim=True)) * of_keys

    return turn_down


ATMAN = method(
    atman,
    name="atman",
    family="masking",
    source="Deiseroth et al. 2023, NeurIPS, arXiv 2301.08110",
    needs="forward passes, attention",
    sign="signed",
    forwards=Passes(lambda size, options: size.n_patches + 1, "N + 1"),
    score="attribution to logprob",
)
