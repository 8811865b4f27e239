"""MUTEX: attention as a multiplex network of patches, whose important nodes are used as inputs.

Marchetti et al. 2025, Neural Computing and Applications 37(29), 24385-24420.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_activations
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.attribution.token_subset import mean_score_where_kept
from caap_lab.checks import check_count, check_share, first_block
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

EQUAL = 1e-6
"""Tolerance of equality: for values of a statistic relative to their spread over patches, for strengths to their size.

Patches can be equal by construction: without a class token the attention given by all heads sums to the number of
heads, and links in a single block give the same skewness for any strength. Rounding must not choose among them. But the
tolerance must not hide real differences: if attention is nearly uniform, all values of a statistic are close.
"""


@torch.no_grad()
def mutex(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    min_cut: float = 0.01,
    token_ratio: float = 0.5,
    start_layer: int = 0,
    chunk_size: int = 32,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """sum_m p_m M_m[t] / max(1, sum_m M_m[t]) over 54 masks m of patches, p_m = p_c with the patches of M_m alone.

    Each block's attention among patches is pooled over heads (min, max or sum) into E^l, and entries below
    `min_cut` max(E^l) become 0. A patch's strengths over blocks l >= start (column sums: received; row sums: given) are
    summed up by nine statistics, see `statistics`. Each of the 3 x 2 x 9 makes a mask of the patches whose value is at
    least the ceil(token_ratio N)-th smallest; of equal values, up to rounding, it keeps all or none. Masks are the same
    for all targets, but not their scores.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        min_cut: Fraction of a block's strongest link below which links are cut.
        token_ratio: Fraction of patches that a mask drops, except for one and for ties.
        start_layer: First block; a negative number counts from the end.
        chunk_size: Masks run at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_share("min_cut", min_cut)
    check_share("token_ratio", token_ratio, zero=False)
    start_layer = first_block(model.n_layers, start_layer)
    check_count("chunk_size", chunk_size)
    found = []
    for image, target in zip(images[:, None], targets, strict=True):  # one by one, because masks differ
        hooks = ["blocks.0.hook_resid_pre", *block_hooks(model, "attn.pattern")[start_layer:]]
        _, (entering, *patterns) = read_activations(model, image, hooks)
        keep = masks(torch.cat(patterns)[..., -model.spec.n_patches :, -model.spec.n_patches :], min_cut, token_ratio)
        found.append(mean_score_where_kept(model, entering[0], keep, target, chunk_size, probability))
    return on_grid(model, torch.stack(found))


def masks(
    attention: Float[Tensor, "layer head patch patch"], min_cut: float, token_ratio: float
) -> Bool[Tensor, "mask patch"]:
    """MUTEX's masks for one image: True where a patch is kept."""
    wide = widened(attention)
    n_patches = wide.shape[-1]
    rank = max(1, math.ceil(token_ratio * n_patches - 1e-9))  # 0.1 * 30 is above 3 in floating point
    rows = []
    # The sum of a softmax's rows if no link is cut: 1 in a single head, and over all heads their number.
    for links, whole in ((wide.amin(dim=1), 1), (wide.amax(dim=1), 1), (wide.sum(dim=1), wide.shape[1])):
        kept = torch.where(links < min_cut * links.amax(dim=(1, 2), keepdim=True), 0, links).cpu().double()
        given = kept.sum(dim=2)
        given = torch.where((given - whole).abs() <= EQUAL * whole, whole, given)
        rows += [statistics(kept.sum(dim=1)), statistics(given)]
    values = torch.cat(rows)
    lowest = values.kthvalue(rank, dim=1, keepdim=True).values
    spread = values.amax(dim=1, keepdim=True) - values.amin(dim=1, keepdim=True)
    # Rounding of the statistics in float64. The last two divide by a power of the spread, which amplifies it; with two
    # or three blocks they are equal for all patches by construction.
    rounding = values.abs().amax(dim=1, keepdim=True) * values.new_tensor(6 * ([1e-12] * 7 + [EQUAL] * 2))[:, None]
    return (values >= lowest - EQUAL * spread - rounding).to(attention.device)


def statistics(strengths: Float[Tensor, "layer patch"]) -> Float[Tensor, "statistic patch"]:
    """Nine statistics of each patch over layers.

    Entropy of the layers' fractions, maximum, minimum, sum, standard deviation (n - 1), sum / (standard deviation +
    1e-8), lower median, skewness and excess kurtosis (both with n). Statistics that are undefined for equal values are
    0: skewness and kurtosis, the standard deviation of one layer, and the entropy of zeros.
    """
    n_layers = len(strengths)
    total = strengths.sum(dim=0)
    shares = strengths / torch.where(total == 0, 1, total)
    centred = strengths - strengths.mean(dim=0)
    constant = centred.abs().amax(dim=0) <= EQUAL * strengths.abs().amax(dim=0)
    centred = torch.where(constant, 0, centred)
    second, third, fourth = (centred.pow(n).mean(dim=0) for n in (2, 3, 4))
    safe = torch.where(constant, 1, second)
    spread = (second * n_layers / max(1, n_layers - 1)).sqrt()
    return torch.stack(
        [
            -torch.special.xlogy(shares, shares).sum(dim=0),
            strengths.amax(dim=0),
            strengths.amin(dim=0),
            total,
            spread,
            total / (spread + 1e-8),
            strengths.median(dim=0).values,
            third / safe**1.5,
            torch.where(constant, 0, fourth / safe**2 - 3),
        ]
    )


MUTEX = method(
    mutex,
    name="mutex",
    family="masking",
    source="Marchetti et al. 2025, Neural Computing and Applications 37(29)",
    needs="forward passes, attention",
    sign="level",
    forwards=Passes(
        lambda size, options: 1 + 54 * options["token_ratio"],  # equal masks run once, so that it can be less
        "1, and up to 54 with about N / 2 patches",
    ),
    score="attribution to prob",
)
