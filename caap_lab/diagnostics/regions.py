"""From masks of objects to the patches that are theirs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import check_images, is_single
from caap_lab.models.tokens import mask_share

BACKGROUND, LEFT_OUT = -1, -2

Masks = Any
"""The objects of one image: one bool mask [H, W], or a list or dict of them."""


class Photo(NamedTuple):
    """An image with the objects on its patches."""

    name: str | int
    image: Any
    regions: Int[np.ndarray, "row col"]


def patch_regions(
    masks: Masks, model: HookedModel, *, ignored: Any = None, overlap: float = 0.5
) -> Int[np.ndarray, "row col"]:
    """Which object each patch belongs to.

    A patch belongs to the object that covers the largest share of it, if that is at least `overlap`; where several
    cover the same share, to the one with the fewest pixels (a keyboard before the laptop that holds it), then to the
    first. All other patches are background.

    Args:
        masks: One bool mask [H, W] as the model saw it (`model.preprocessing.mask` makes one), or a list or dict of
            them, one an object; masks of the same pixels count as one object.
        model: The model, for its grid.
        ignored: Pixels that the annotation leaves open, bool [H, W]. Shares are of a patch's other pixels; patches with
            less than half of these are left out.
        overlap: Least share from 0 to 1; 0 takes any pixel.

    Returns:
        The object's place in `masks` from 0, -1 for background, -2 for patches left out.

    Raises:
        InputError: a mask is not bool, or has another size.
    """
    given = masks.values() if isinstance(masks, Mapping) else [masks] if getattr(masks, "ndim", 0) == 2 else list(masks)
    objects = [_checked("A mask", mask) for mask in given]
    if not objects:
        raise InputError("An image has no masks; attention is compared between objects and background.")
    known = np.zeros_like(objects[0]) if ignored is None else _checked("The mask of ignored pixels", ignored)
    if any(mask.shape != known.shape for mask in objects):
        raise InputError("The masks of an image, and that of its ignored pixels, differ in size.")
    # Of masks with the same pixels, the first one's place.
    places = {mask.tobytes(): place for place, mask in reversed(list(enumerate(objects)))}
    order = sorted(places.values(), key=lambda place: (int(objects[place].sum()), place))
    shares = np.stack([mask_share(objects[place] & ~known, model) for place in order])
    open_share = mask_share(~known, model)
    best = shares.max(axis=0)
    owner = np.array(order)[shares.argmax(axis=0)]  # the first of equal shares
    regions = np.where((best > 0) & (best >= overlap * open_share), owner, BACKGROUND)
    return np.where(open_share >= 0.5, regions, LEFT_OUT)


def photos_with_regions(
    model: HookedModel, images: Images | ImageSet, masks: Any, ignored: Any, overlap: float
) -> tuple[int, Iterator[Photo]]:
    """How many images there are, and each with its regions; those of a data set are read one at a time.

    Raises:
        InputError: masks are missing, do not fit, or are not one entry per image.
    """
    if isinstance(images, ImageSet):
        if masks is not None or ignored is not None:
            raise InputError("A data set brings its own masks; leave masks and ignored out.")
        if not images.has_masks:
            raise InputError(f"{images.source} has images without masks.")
        return len(images), _of_data_set(model, images, overlap)
    singles = check_images(images)
    if masks is None:
        raise InputError(
            "Masks of the objects are needed: for each image a bool mask [H, W], or a list or dict of them."
        )
    if is_single(images):
        masks, ignored = [masks], [ignored]
    else:
        masks = _one_each("masks", masks, len(singles))
        ignored = [None] * len(singles) if ignored is None else _one_each("ignored", ignored, len(singles))
    # All at once, so that a wrong mask is seen before the model runs.
    regions = [
        patch_regions(mask, model, ignored=pixels, overlap=overlap) for mask, pixels in zip(masks, ignored, strict=True)
    ]
    return len(singles), iter([Photo(*photo) for photo in zip(range(len(singles)), singles, regions, strict=True)])


def _of_data_set(model: HookedModel, images: ImageSet, overlap: float) -> Iterator[Photo]:
    as_seen = model.preprocessing.mask
    for sample in images:
        known = sample.regions
        ignored = None if known.ignored is None else as_seen(known.ignored)
        distinct = {id(mask): mask for mask in known.masks.values()}  # classes that share their pixels share an array
        masks = [as_seen(mask) for mask in distinct.values()]
        yield Photo(sample.name, sample.image, patch_regions(masks, model, ignored=ignored, overlap=overlap))


def _one_each(name: str, values: Iterable[Any], count: int) -> list[Any]:
    if isinstance(values, Mapping) or len(entries := list(values)) != count:
        many = "a dict" if isinstance(values, Mapping) else f"{len(entries)} entries"
        raise InputError(f"{name} needs a list with one entry for each of the {count} images, not {many}.")
    return entries


def _checked(what: str, mask: Any) -> Bool[np.ndarray, "height width"]:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if not isinstance(array, np.ndarray) or array.dtype != bool or array.ndim != 2:
        kind = type(mask).__name__ if not isinstance(array, np.ndarray) else f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"{what} has to be bool [height, width], as the model saw the image; this is {kind}. "
            "model.preprocessing.mask(...) makes one from a mask of the photo."
        )
    return array
