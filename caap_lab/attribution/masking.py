"""What the masking methods share: images made of two, their scores, and checks of options."""

from collections.abc import Callable
from numbers import Integral, Real

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from caap_lab.errors import InputError
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.spec import ViTSpec


def pixel_mask(spec: ViTSpec, patches: Bool[Tensor, "choice patch"]) -> Bool[Tensor, "choice 1 height width"]:
    """Choices of patches as masks of pixels; pixels beyond the last whole patch, which no model reads, are False."""
    height, width = spec.patch_size
    cells = patches.reshape(-1, 1, *spec.grid)
    mask = cells.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)
    return F.pad(mask, (0, spec.image_size[1] - mask.shape[3], 0, spec.image_size[0] - mask.shape[2]))


def scores_in_chunks(
    model: HookedViT,
    masks: Tensor,
    images_of: Callable[[Tensor], Tensor],
    target: Tensor,
    chunk_size: int,
    score: str = "prob",
) -> Tensor:
    """One class's score of the image that each mask makes, [mask].

    Args:
        model: The model.
        masks: Anything with one entry an image.
        images_of: A chunk of masks to a batch of images.
        target: The class.
        chunk_size: Images run at once.
        score: "logit" or "prob".
    """
    found = []
    for part in masks.split(chunk_size):
        logits = model(images_of(part))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found.append((logits if score == "logit" else logits.softmax(dim=1))[:, target])
    return torch.cat(found)


def check_seed(seed: int) -> None:
    """Refuse a seed that torch does not take."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r} must be a whole number from 0 to 2**63 - 1.")


def check_share(name: str, value: float, zero: bool = True, one: bool = True) -> None:
    """Refuse anything but a number from 0 to 1; `zero` and `one` say whether the ends are allowed."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
        low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
        raise InputError(f"{name}={value!r} must be a number {low} and {high}.")
