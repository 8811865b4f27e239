"""Grad-SAM (Barkan et al. 2021, CIKM, arXiv 2204.11073): attention times its positive gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_gradients
from caap_lab.attribution.method import method
from caap_lab.checks import check_choice
from caap_lab.errors import InputError
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

ROWS = ("all", "cls")


def grad_sam(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    rows: str = "all",
) -> Float[Tensor, "batch row col"]:
    """Mean over blocks l, heads h and query rows q of A^l_{h,q,t} ReLU(dy/dA^l_{h,q,t}).

    `rows` selects the query rows: "all", or "cls" for the class token's only. Public implementations disagree about a
    token's score: the mean over queries, as here, the mean over keys, or the class token's row. Which of them the paper
    means has not been verified.
    """
    check_choice("rows", rows, ROWS)
    if rows == "cls" and "cls" not in model.spec.prefix:
        raise InputError(f"{model.model_name} has no class token, so there is no row for rows='cls'; use rows='all'.")
    queries = slice(1) if rows == "cls" else slice(None)
    _, patterns, gradients = read_gradients(model, images, targets, block_hooks(model, "attn.pattern"))
    blocks = zip(patterns, gradients, strict=True)
    return on_grid(model, torch.stack([(a * g.relu())[:, :, queries].mean((1, 2)) for a, g in blocks]).mean(0))


GRAD_SAM = method(
    grad_sam,
    name="grad_sam",
    family="gradient",
    source="Barkan et al. 2021, arXiv 2204.11073",
    needs="gradient, attention",
    sign="positive",
    forwards=1,
    backwards=1,
)
