"""Score-CAM (Wang et al. 2020, CVPR Workshops, arXiv 1910.01279) on the last maps of a CNN or ViT, or a layer's."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.activations_and_gradients import read_activations, read_layer
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.grad_cam import as_maps, cam_hook
from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.checks import check_count
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.targets import Targets


@torch.no_grad()
def score_cam(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    chunk_size: int = 64,
) -> Float[Tensor, "batch row col"]:
    """map_p = ReLU(sum_k w_k a_{p,k}), w = softmax_k of y(x * minmax(up(a_k))).

    a are the maps that Grad-CAM reads: a CNN's last block, or a ViT's as in the version "token"; `up` enlarges
    bilinearly to the image's size and `minmax` scales each channel to 0..1. `chunk_size` masked images run at once; it
    does not change results.
    """
    check_count("chunk_size", chunk_size)
    _, (read,) = read_activations(model, images, [cam_hook(model)])
    return _weighted(model, images, targets, as_maps(model, read), chunk_size)


@torch.no_grad()
def score_cam_of_layer(
    model: BlackBoxModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    layer: str | None = None,
    chunk_size: int = 64,
) -> Float[Tensor, "batch row col"]:
    """Score-CAM at a layer of a black box, by name; None for the layer with the last maps."""
    check_count("chunk_size", chunk_size)
    a = read_layer(model, images, model.find_layer(layer))
    return _weighted(model, images, targets, a, chunk_size)


def _weighted(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    a: Float[Tensor, "batch channel row col"],
    chunk_size: int,
) -> Float[Tensor, "batch row col"]:
    weights = []
    for image, channels, target in zip(images, a, targets, strict=True):

        def masked(part: Tensor, image: Tensor = image) -> Tensor:
            up = F.interpolate(part, model.image_size, mode="bilinear", align_corners=False)
            low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
            return image * (up - low) / (high - low).clamp(min=torch.finfo(up.dtype).tiny)

        weights.append(scores_in_chunks(model, channels[:, None], masked, target, chunk_size, "logit").softmax(0))
    return (torch.stack(weights)[..., None, None] * a).sum(1).relu()


SCORE_CAM = method(
    score_cam,
    name="score_cam",
    family="masking",
    source="Wang et al. 2020, arXiv 1910.01279",
    needs="forward passes",
    sign="positive",
    forwards=Passes(lambda size, options: 1 + size.channels, "1 + channels"),
    reads="feature maps",
    on={"black_box": score_cam_of_layer},
)
