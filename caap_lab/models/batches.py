"""Batches of any number of images, without keeping them all in memory as tensors."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.at_once import images_at_once
from caap_lab.models.images import check_photo

if TYPE_CHECKING:
    from caap_lab.models.base import HookedModel, Images


def single_images(images: "Images") -> "list[Images]":
    """One entry per image: lists are flattened, batches [B, 3, H, W] split into views."""
    if isinstance(images, Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (list, tuple)):
        return [single for image in images for single in single_images(image)]
    return [images]


def check_images(images: "Images") -> "list[Images]":
    """One entry per image, after a check that there are images and that every file exists and looks like one."""
    singles = single_images(images)
    if not singles:
        raise InputError("No images were given.")
    for image in singles:
        if isinstance(image, (str, Path)):
            check_photo(image)
    return singles


def is_single(images: "Images") -> bool:
    """True for a single image: not a list, and not a tensor of several images."""
    if isinstance(images, (list, tuple)):
        return False
    return not (isinstance(images, Tensor) and images.ndim == 4 and len(images) != 1)


def batches(model: "HookedModel", images: "Images", batch_size: int) -> Iterator[Tensor]:
    """Preprocessed batches [<= batch_size, 3, H, W], in order; files are read when their batch is due.

    A quantised model gets its images one by one, because the other images of a batch would affect its rounding.
    """
    check_count("batch_size", batch_size)
    batch_size = images_at_once(model, batch_size)
    singles = single_images(images)
    if not singles:
        raise InputError("No images were given.")
    whole = images if isinstance(images, Tensor) and images.ndim == 4 else None  # taken in slices, without a copy
    for start in range(0, len(singles), batch_size):
        rows = slice(start, start + batch_size)
        yield model.preprocess(singles[rows] if whole is None else whole[rows].contiguous())
