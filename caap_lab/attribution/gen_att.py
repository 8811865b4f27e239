"""Generic attention explainability: attention times its gradient, block after block (Chefer et al. 2021, ICCV)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_gradients
from caap_lab.attribution.attention_rows import row_of_product
from caap_lab.attribution.method import method
from caap_lab.checks import first_block
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def gen_att(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
) -> Float[Tensor, "batch row col"]:
    """R[CLS, patches], where R = I before block start, and R <- R + mean_h (A_h * dy_c/dA_h)^+ R at every block.

    If the head reads other tokens than the class token, their rows are used; see `attention_rows.query_row`.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        start_layer: First block; a negative number counts from the end.
    """
    start_layer = first_block(model.n_layers, start_layer)
    hooks = block_hooks(model, "attn.pattern")[start_layer:]
    _, patterns, gradients = read_gradients(model, images, targets, hooks)
    eye = torch.eye(model.spec.n_tokens, device=images.device, dtype=torch.float32)
    steps = [eye + (widened(a) * widened(g)).clamp(min=0).mean(dim=1) for a, g in zip(patterns, gradients, strict=True)]
    return on_grid(model, row_of_product(model, steps))


GEN_ATT = method(
    gen_att,
    name="gen_att",
    family="attention",
    source="Chefer et al. 2021, ICCV, arXiv 2103.15679",
    needs="attention, gradient",
    sign="positive",
    forwards=1,
    backwards=1,
)
