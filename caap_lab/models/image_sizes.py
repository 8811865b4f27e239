"""Image sizes: which sizes fit a model's patches, and timm's models at other sizes than they were built for."""

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.preprocess import check_image_size

Body = TypeVar("Body", bound=nn.Module)


def as_image_size(size: Any) -> tuple[int, int]:
    """An image size as (height, width).

    Args:
        size: Pixels, or (height, width).

    Raises:
        InputError: it is neither, or larger than any model accepts.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
        raise InputError(f"image_size={size!r} is not a number of pixels or a (height, width).")
    check_image_size((pair[0], pair[1]))
    return pair[0], pair[1]


def check_whole_patches(size: tuple[int, int], patch: tuple[int, int], name: str, word: str = "patches") -> None:
    """Raise InputError unless an image size is a whole number of patches.

    Raises:
        InputError: it is not; the message gives the nearest sizes that are.
    """
    if any(side % pixels for side, pixels in zip(size, patch, strict=True)):
        low = [max(side // pixels, 1) * pixels for side, pixels in zip(size, patch, strict=True)]
        high = [-(-side // pixels) * pixels for side, pixels in zip(size, patch, strict=True)]
        nearest = " or ".join(f"({height}, {width})" for height, width in dict.fromkeys([tuple(low), tuple(high)]))
        raise InputError(
            f"image_size={size} is not a whole number of {word}: those of {name} have {patch[0]} x {patch[1]} pixels. "
            f"Use {nearest}."
        )


def pads_images(patch_embed: Any) -> bool:
    """True for a timm model that pads its images with zeros to whole patches (dynamic_img_pad)."""
    whole = all(side % pixels == 0 for side, pixels in zip(patch_embed.img_size, patch_embed.patch_size, strict=True))
    return bool(getattr(patch_embed, "dynamic_img_pad", False)) and not whole


def resized(vit: Body, size: tuple[int, int]) -> Body:
    """A timm Vision Transformer for another image size, by timm's own `set_input_size`.

    It shares all weights except positions, which timm resamples; the given model is unchanged.

    Args:
        vit: The model.
        size: Height and width in pixels, a whole number of patches.

    Raises:
        InputError: the model has positions that timm cannot resample.
    """
    kind = type(vit).__name__
    pool: Any = getattr(vit, "attn_pool", None)
    if not hasattr(vit, "set_input_size") or getattr(pool, "pos_embed", None) is not None:
        where = "has no set_input_size" if pool is None else "adds positions in its head, which timm does not resample"
        raise InputError(f"This {kind} {where}, so it takes images of one size only.")
    other: Any = copy.deepcopy(vit, {id(parameter): parameter for parameter in vit.parameters()})
    # No gradient could be taken through positions made in inference mode.
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore", UserWarning)  # torch's, about how timm resamples relative positions
        other.set_input_size(img_size=size)
    return other
