"""Helpers of the attention methods: the query rows of the prediction, and products over blocks."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.vit import HookedViT


def query_row(model: HookedViT, matrices: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch key"]:
    """The row that papers call the CLS row: that of the token that the head reads.

    If the head reads several, this is their mean (class and distillation token; all patches); if it reads both class
    token and patches (DINOv2's linear heads), the two means count half each.
    """
    first_patch = model.spec.n_prefix
    kinds = [[t for t in model.spec.read_tokens if (t < first_patch) is prefix] for prefix in (True, False)]
    return torch.stack([matrices[..., rows, :].mean(dim=-2) for rows in kinds if rows]).mean(dim=0)


def row_of_product(
    model: HookedViT, matrices: Sequence[Float[Tensor, "batch query key"]]
) -> Float[Tensor, "batch token"]:
    """`query_row` of M^{L-1} ... M^1 M^0, for matrices given from the first block to the last."""
    eye = torch.eye(model.spec.n_tokens, device=matrices[0].device, dtype=matrices[0].dtype)
    row = query_row(model, eye).expand(len(matrices[0]), 1, -1)
    for matrix in reversed(matrices):  # from the left: a row times a matrix is cheaper than a product of matrices
        row = row @ matrix
    return row[:, 0]
