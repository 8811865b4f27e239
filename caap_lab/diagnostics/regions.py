"""Images with their objects assigned to patches."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import check_images, is_single
from caap_lab.models.regions import patch_regions


class Photo(NamedTuple):
    """An image with its objects assigned to patches."""

    name: str | int
    image: Any
    regions: Int[np.ndarray, "row col"]


def photos_with_regions(
    model: HookedModel, images: Images | ImageSet, masks: Any, ignored: Any, overlap: float
) -> tuple[int, Iterator[Photo]]:
    """The number of images, and each with its regions; images of a data set are read one at a time.

    Raises:
        InputError: masks are missing, do not fit, or there is not one entry per image.
    """
    if isinstance(images, ImageSet):
        if masks is not None or ignored is not None:
            raise InputError("A data set has its own masks; omit masks and ignored.")
        if not images.has_masks:
            raise InputError(f"{images.source} has images without masks.")
        return len(images), _of_data_set(model, images, overlap)
    singles = check_images(images)
    if masks is None:
        raise InputError(
            "Masks of the objects are needed: for each image a bool mask [H, W], or a list or dict of them, "
            "such as a demo scene's .masks."
        )
    if is_single(images):
        masks, ignored = [masks], [ignored]
    else:
        masks = _one_each("masks", masks, len(singles))
        ignored = [None] * len(singles) if ignored is None else _one_each("ignored", ignored, len(singles))
    # All at once, so that an invalid mask is found before the model runs.
    regions = [
        patch_regions(mask, model, ignored=pixels, overlap=overlap) for mask, pixels in zip(masks, ignored, strict=True)
    ]
    return len(singles), iter([Photo(*photo) for photo in zip(range(len(singles)), singles, regions, strict=True)])


def _of_data_set(model: HookedModel, images: ImageSet, overlap: float) -> Iterator[Photo]:
    as_seen = model.preprocessing.mask
    for sample in images:
        known = sample.regions
        ignored = None if known.ignored is None else as_seen(known.ignored)
        distinct = {id(mask): mask for mask in known.masks.values()}  # classes with the same pixels share an array
        masks = [as_seen(mask) for mask in distinct.values()]
        yield Photo(sample.name, sample.image, patch_regions(masks, model, ignored=ignored, overlap=overlap))


def _one_each(name: str, values: Iterable[Any], count: int) -> list[Any]:
    if isinstance(values, Mapping) or len(entries := list(values)) != count:
        many = "a dict" if isinstance(values, Mapping) else f"{len(entries)} entries"
        raise InputError(f"{name} needs a list with one entry for each of the {count} images, not {many}.")
    return entries
