"""The model's logits when only some of the patch tokens enter the encoder."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.at_once import images_at_once
from caap_lab.models.targets import Target
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def logits_of_subsets(
    model: HookedViT,
    entering: Float[Tensor, "token d_model"],
    keep: Bool[Tensor, "mask patch"],
    chunk_size: int = 32,
) -> Float[Tensor, "mask classes"]:
    """Logits of one image with the patches that each mask keeps and all prefix tokens; a head pools only these.

    Tokens are dropped, not masked, which saves time. Masks of equal size run together, equal masks once.

    Args:
        model: The model.
        entering: Residual stream entering block 0, positions added: `model.embed(images)[i]`.
        keep: True where a patch is kept.
        chunk_size: Masks run at once.

    Raises:
        InputError: a mask keeps no token that the head reads, or the head needs all tokens.
    """
    check_count("chunk_size", chunk_size)
    distinct, which = keep.unique(dim=0, return_inverse=True)
    sizes = distinct.sum(dim=1)
    if set(model.spec.read_tokens).isdisjoint(range(model.spec.n_prefix)) and not sizes.all():
        raise InputError("A mask keeps no patch, but this model's head reads patches only.")
    if model.readout.adds_positions:
        raise InputError(f"{model.model_name} adds positions again in its head, which needs all tokens.")
    prefix = torch.arange(model.spec.n_prefix, device=keep.device)
    width = model.n_classes + len(model.directions)
    logits = torch.empty(len(distinct), width, device=entering.device, dtype=entering.dtype)
    for size in sizes.unique().tolist():
        for rows in (sizes == size).nonzero()[:, 0].split(images_at_once(model, chunk_size)):
            patches = distinct[rows].nonzero()[:, 1].reshape(len(rows), size) + len(prefix)
            tokens = torch.cat([prefix.expand(len(rows), -1), patches], dim=1)
            logits[rows] = model(entering[tokens], start_at_layer=0, tokens=tokens)
    return logits[which]


def mean_score_where_kept(
    model: HookedViT,
    entering: Float[Tensor, "token d_model"],
    keep: Bool[Tensor, "mask patch"],
    target: Target,
    chunk_size: int,
    probability: str = "auto",
) -> Float[Tensor, " patch"]:
    """sum_m p_m M_m[t] / max(1, sum_m M_m[t]): each patch's mean of p_c over the masks M that keep it."""
    probs = target.probability(logits_of_subsets(model, entering, keep, chunk_size), probability)
    return probs @ keep.to(probs.dtype) / keep.sum(dim=0).clamp(min=1)


def largest(values: Float[Tensor, "mask patch"], count: int) -> Bool[Tensor, "mask patch"]:
    """True for each row's largest values, exactly `count` of them; of equal ones, the first."""
    order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return F.one_hot(order, values.shape[1]).sum(dim=1).bool()
