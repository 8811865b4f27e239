"""Transformer Input Sampling: the model's scores for the tokens at which a group of channels is strongest.

Englebert et al. 2023, ICCV Workshops.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_activations
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.attribution.token_subset import largest, mean_score_where_kept
from caap_lab.checks import check_count, check_seed, check_share
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def tis(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    clusters: int = 1024,
    kept: float = 0.5,
    seed: int = 0,
    chunk_size: int = 32,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """sum_m p_m M_m[t] / max(1, sum_m M_m[t]) over masks m of patches, p_m = p_c with the patches of M_m alone.

    The patches' activations leaving all blocks are columns of N values, one per channel and block. k-means clusters
    them, and every centroid makes a mask of the patches with the largest int(kept N) values; of equal ones, the first.
    If there are no more than `clusters` distinct columns, these are the centroids.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        clusters: Number of masks.
        kept: Fraction of patches that a mask keeps; at least one patch.
        seed: Seed of k-means, the same for all images.
        chunk_size: Masks run at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_count("clusters", clusters)
    check_share("kept", kept, zero=False)
    check_count("chunk_size", chunk_size)
    check_seed(seed, bits=32)
    count = max(1, int(kept * model.spec.n_patches + 1e-9))
    hooks = ["blocks.0.hook_resid_pre", *block_hooks(model, "resid_post")]
    found = []
    for image, target in zip(images[:, None], targets, strict=True):  # one by one, because masks differ
        _, (entering, *leaving) = read_activations(model, image, hooks)
        columns = torch.cat(leaving, dim=2)[0, -model.spec.n_patches :].T
        keep = largest(centroids(columns, clusters, seed), count)
        found.append(mean_score_where_kept(model, entering[0], keep, target, chunk_size, probability))
    return on_grid(model, torch.stack(found))


def centroids(columns: Float[Tensor, "column patch"], clusters: int, seed: int) -> Float[Tensor, "cluster patch"]:
    """Centroids of k-means, or the distinct columns if there are no more of them."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct = np.unique(widened(columns).cpu().numpy(), axis=0)
    if len(distinct) > clusters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal columns give fewer clusters
            distinct = (
                KMeans(clusters, n_init=1, random_state=seed).fit(widened(columns).cpu().numpy()).cluster_centers_
            )
    return torch.from_numpy(distinct).to(columns.device)


TIS = method(
    tis,
    name="tis",
    family="masking",
    source="Englebert et al. 2023, ICCV Workshops",
    needs="forward passes",
    sign="level",
    forwards=Passes(
        lambda size, options: 1 + options["clusters"] * options["kept"],  # equal masks run once
        "1, and up to 1024 with N / 2 patches",
    ),
    score="attribution to prob",
)
