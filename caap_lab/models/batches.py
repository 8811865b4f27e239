"""Any number of images, a batch at a time, without holding them all as tensors."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.images import check_photo
from caap_lab.models.quantised import images_at_once

if TYPE_CHECKING:
    from caap_lab.models.base import HookedModel, Images


def single_images(images: "Images") -> "list[Images]":
    """One entry an image: lists flattened, batches [B, 3, H, W] split into views."""
    if isinstance(images, Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (list, tuple)):
        return [single for image in images for single in single_images(image)]
    return [images]


def check_images(images: "Images") -> "list[Images]":
    """One entry an image, after looking that there are any and that every file is there and starts as a picture."""
    singles = single_images(images)
    if not singles:
        raise InputError("No images were given.")
    for image in singles:
        if isinstance(image, (str, Path)):
            check_photo(image)
    return singles


def is_single(images: "Images") -> bool:
    """True for one image on its own: not a list, and not a tensor of several images."""
    if isinstance(images, (list, tuple)):
        return False
    return not (isinstance(images, Tensor) and images.ndim == 4 and len(images) != 1)


def batches(model: "HookedModel", images: "Images", batch_size: int) -> Iterator[Tensor]:
    """Preprocessed batches [<= batch_size, 3, H, W], in order; files are read when their batch comes.

    A quantised model gets its images one by one, as it would round each by what the others hold.
    """
    check_count("batch_size", batch_size)
    batch_size = images_at_once(model.body, batch_size)
    singles = single_images(images)
    if not singles:
        raise InputError("No images were given.")
    for start in range(0, len(singles), batch_size):
        yield model.preprocess(singles[start : start + batch_size])
