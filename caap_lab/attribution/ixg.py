"""Input times gradient of tokens, summed over blocks: IxG+, SkipPLUS and their Libra form.

Mehri et al. 2024 (CVPR Workshops) and Mehri et al. 2025 (CVPR).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import on_grid, read_gradients, stream_hooks
from caap_lab.attribution.libragrad import libragrad
from caap_lab.attribution.method import method
from caap_lab.checks import first_block
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Targets


def ixg_plus(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
    first_term: str = "before_norm_pre",
) -> Float[Tensor, "batch row col"]:
    """Sum over blocks l >= start_layer of sum_d h^l_{t,d} dy/dh^l_{t,d}, where h^l enters block l; signed.

    SkipPLUS is `start_layer` = half of the blocks.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        start_layer: First block of the sum; a negative number counts from the end.
        first_term: Where h^0 is read in models with a norm before block 0, such as CLIP: "before_norm_pre", as in the
            authors' code, or "entering_block", after it. The maps differ considerably; other models have no such norm.
    """
    start_layer = first_block(model.n_layers, start_layer)
    hooks = stream_hooks(model, first_term)[start_layer:]
    _, entering, gradients = read_gradients(model, images, targets, hooks)
    return on_grid(model, torch.stack([(h * g).sum(-1) for h, g in zip(entering, gradients, strict=True)]).sum(0))


def libra_ixg_plus(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    start_layer: int = 0,
    first_term: str = "before_norm_pre",
) -> Float[Tensor, "batch row col"]:
    """IxG+ under LibraGrad's backward rules, with the options of `ixg_plus`."""
    with libragrad(model):
        return ixg_plus(model, images, targets, start_layer=start_layer, first_term=first_term)


IXG_PLUS = method(
    ixg_plus,
    name="ixg_plus",
    family="gradient",
    source="SkipPLUS, Mehri et al. 2024, CVPR Workshops",
    needs="gradient",
    sign="signed",
    forwards=1,
    backwards=1,
    reads="residual stream",
)
LIBRA_IXG_PLUS = method(
    libra_ixg_plus,
    name="libra_ixg_plus",
    family="gradient",
    source="LibraGrad, Mehri et al. 2025, CVPR",
    needs="gradient",
    sign="signed",
    forwards=1,
    backwards=1,
    reads="residual stream",
)
