"""Attention rollout: how attention, block after block, mixes the tokens (Abnar & Zuidema 2020, ACL)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_activations
from caap_lab.attribution.attention_rows import row_of_product
from caap_lab.attribution.method import method
from caap_lab.checks import first_block
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def rollout(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
) -> Float[Tensor, "batch row col"]:
    """R[CLS, patches] of R = M^{L-1} ... M^start, where M^l = (mean_h A^l_h + I) / 2.

    The halves represent attention and the residual connection; rows of M^l sum to 1. The map is the same for all
    targets. If the head reads other tokens than the class token, their rows are used; see `attention_rows.query_row`.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: Not used.
        start_layer: First block of the product; a negative number counts from the end. The paper uses all blocks;
            the segmentation script of Chefer et al. (CVPR 2021), which many comparisons use, starts at block 1, which
            gives other maps.
    """
    start_layer = first_block(model.n_layers, start_layer)
    _, patterns = read_activations(model, images, block_hooks(model, "attn.pattern")[start_layer:])
    eye = torch.eye(model.spec.n_tokens, device=images.device, dtype=torch.float32)
    return on_grid(model, row_of_product(model, [(widened(a).mean(dim=1) + eye) / 2 for a in patterns]))


ROLLOUT = method(
    rollout,
    name="rollout",
    family="attention",
    source="Abnar & Zuidema 2020, ACL, arXiv 2005.00928",
    needs="attention",
    sign="positive",
    forwards=1,
    class_specific=False,
)
