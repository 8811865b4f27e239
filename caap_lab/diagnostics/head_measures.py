"""Distance and entropy of attention: of one query, and as a mean over the patches of an image."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.spec import ViTSpec


def patch_distances(spec: ViTSpec) -> Float[Tensor, "patch patch"]:
    """Distances between the centres of patches in pixels, float64."""
    (rows, cols), (height, width) = spec.grid, spec.patch_size
    row = height * torch.arange(rows, device="cpu").repeat_interleave(cols).double()
    col = width * torch.arange(cols, device="cpu").repeat(rows).double()
    return torch.hypot(row[:, None] - row, col[:, None] - col)


def query_distance(
    attention: Float[Tensor, "*query patch"], distances: Float[Tensor, "*of_query patch"]
) -> Float[Tensor, "*query"]:
    """Distance from queries to patches, weighted by attention to patches only; NaN if there is no such attention.

    Args:
        attention: Attention of each query to each patch.
        distances: Distance from each query to each patch, or the same distances for all queries.
    """
    return (attention * distances.to(attention)).sum(dim=-1) / attention.sum(dim=-1)


def query_entropy(attention: Float[Tensor, "*query key"]) -> Float[Tensor, "*query"]:
    """Entropy in nats of each query's attention over all tokens."""
    return torch.special.entr(attention).sum(dim=-1)


def attention_distance(
    pattern: Float[Tensor, "batch head query key"], distances: Float[Tensor, "patch patch"]
) -> Float[Tensor, "batch head"]:
    """Distance from patches to keys (Mean Attention Distance of Dosovitskiy et al. 2021), as a mean over patches.

    Args:
        pattern: Attention of all tokens; patches are the last ones.
        distances: As `patch_distances` returns them.
    """
    between = pattern[:, :, -len(distances) :, -len(distances) :]
    return query_distance(between, distances).mean(dim=-1)


def attention_entropy(pattern: Float[Tensor, "batch head query key"], n_patches: int) -> Float[Tensor, "batch head"]:
    """Entropy in nats of the patches' attention over all tokens, as a mean over patches."""
    return query_entropy(pattern[:, :, -n_patches:]).mean(dim=-1)
