"""Integrated gradients of pixels (Sundararajan et al. 2017, ICML, arXiv 1703.01365)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import differentiable_scores, sum_patches
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.checks import check_count
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import plain_defaults
from caap_lab.models.targets import Targets


def integrated_gradients(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    steps: int = 50,
    chunk_size: int = 64,
) -> Float[Tensor, "batch row col"]:
    """Sum over a patch's pixels and channels of x times the mean over alpha in 0..1 of dy/dx at alpha x; signed.

    The baseline is 0 in normalised space, the mean colour of the training images; the mean is computed by
    Gauss-Legendre quadrature with `steps` nodes. With enough of them the scores sum to y(x) - y(0). `chunk_size` images
    run at once, but no fewer than the batch; it does not change results.
    """
    check_count("steps", steps)
    check_count("chunk_size", chunk_size)
    from captum.attr import IntegratedGradients

    def value(images: Tensor, rows: Tensor) -> Tensor:
        """Of images on the paths of those in these rows of the batch, which Captum runs as it likes."""
        return differentiable_scores(Targets(tuple(targets[row] for row in rows.tolist())), model(images))

    with plain_defaults():
        products = IntegratedGradients(value).attribute(
            images.detach(),
            additional_forward_args=torch.arange(len(images), device=images.device),
            n_steps=steps,
            internal_batch_size=max(chunk_size, len(images)),
        )
    return sum_patches(model, products.sum(1))


INTEGRATED_GRADIENTS = method(
    integrated_gradients,
    name="integrated_gradients",
    family="gradient",
    source="Sundararajan et al. 2017, arXiv 1703.01365",
    needs="gradient",
    sign="signed",
    forwards=Passes(lambda size, options: options["steps"]),
    backwards=Passes(lambda size, options: options["steps"]),
    reads="pixels",
)
