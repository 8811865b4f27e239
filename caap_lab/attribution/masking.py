"""Helpers of the masking methods: composites of two images, and their scores."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Target


def pixel_mask(model: HookedModel, patches: Bool[Tensor, "choice patch"]) -> Bool[Tensor, "choice 1 height width"]:
    """Choices of patches as masks of pixels; pixels after the last whole patch, which no model reads, are False."""
    (height, width), size = model.patch_size, model.image_size
    cells = patches.reshape(-1, 1, *model.grid)
    mask = cells.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)
    return F.pad(mask, (0, size[1] - mask.shape[3], 0, size[0] - mask.shape[2]))


def scores_in_chunks(
    model: HookedModel,
    masks: Shaped[Tensor, "mask ..."],
    images_of: Callable[[Tensor], Tensor],
    target: Target,
    chunk_size: int,
    score: str = "prob",
    probability: str = "auto",
) -> Float[Tensor, " mask"]:
    """The target's score for the image that each mask makes.

    Args:
        model: The model.
        masks: Anything with one entry per image.
        images_of: Makes a batch of images from a chunk of masks.
        target: The target.
        chunk_size: Largest number of images that run at once.
        score: "logit" or "prob".
        probability: How logits become a "prob"; see `caap_lab.models.probability`.
    """
    found = []
    for part in masks.split(images_at_once(model, chunk_size)):
        logits = model(images_of(part))
        logits = widened(logits)
        found.append(target.value(logits) if score == "logit" else target.probability(logits, probability))
    return torch.cat(found)
