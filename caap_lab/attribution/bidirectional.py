"""Bidirectional attention of "Beyond Intuition" (Chen et al. 2023, ICML), the reference map of MDA."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_gradients
from caap_lab.checks import check_count, first_block
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def bidirectional(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    steps: int = 20,
    start_layer: int | None = None,
    chunk_size: int = 64,
) -> Float[Tensor, "batch row col"]:
    """W R, entry by entry, in the rows of the tokens that the head reads: attention perception times reasoning.

    Perception: R = I, then R <- R + sum_h I_h A_h R from block start_layer on, where the head's weight I_h is the mean
    of |A_h^T dy_c/dA_h| over all entries, scaled to sum to 1 over heads. Reasoning: W = mean_h ReLU of the mean of
    dy_c/dA^{L-1} over images t x with t = 0 ... 1. The rows of class tokens and those of patches are averaged, and the
    two are added if the head reads both.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        steps: Images between 0 (in normalised space) and x, both included.
        start_layer: First block, negative to count from the end; None is a quarter of the blocks (3 of 12, which the
            authors' code uses).
        chunk_size: Images run at once.
    """
    check_count("steps", steps)
    check_count("chunk_size", chunk_size)
    hooks = block_hooks(model, "attn.pattern")
    first = first_block(model.n_layers, len(hooks) // 4 if start_layer is None else start_layer)
    n_prefix = model.spec.n_prefix
    kinds = [[t for t in model.spec.read_tokens if (t < n_prefix) is prefix] for prefix in (True, False)]
    shares = torch.linspace(0, 1, steps, dtype=torch.double, device="cpu").to(images.device, images.dtype)
    found = []
    for image, target in zip(images[:, None], targets, strict=True):
        _, patterns, gradients = read_gradients(model, image, Targets((target,)), hooks[first:])
        perception = torch.eye(model.spec.n_tokens, device=image.device, dtype=image.dtype)
        for pattern, gradient in zip(patterns, gradients, strict=True):
            weights = (pattern[0].mT @ gradient[0]).abs().mean(dim=(1, 2))
            weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
            perception = perception + (weights[:, None, None] * pattern[0]).sum(dim=0) @ perception
        total = torch.zeros_like(patterns[-1][0])
        for part in shares.split(chunk_size):
            scaled = part[:, None, None, None] * image
            _, _, (of_last,) = read_gradients(model, scaled, Targets((target,) * len(part)), hooks[-1:])
            total += of_last.sum(dim=0)
        relevance = (total / steps).clamp(min=0).mean(dim=0) * perception
        found.append(torch.stack([relevance[rows].mean(dim=0) for rows in kinds if rows]).sum(dim=0))
    return on_grid(model, torch.stack(found))
