"""From masks of objects to the patches that are theirs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.tokens import mask_share

BACKGROUND, LEFT_OUT = -1, -2

Masks = Any
"""The objects of one image: one bool mask [H, W], or a list or dict of them."""


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
        raise InputError("An image has no masks of objects.")
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


def _checked(what: str, mask: Any) -> Bool[np.ndarray, "height width"]:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if not isinstance(array, np.ndarray) or array.dtype != bool or array.ndim != 2:
        kind = type(mask).__name__ if not isinstance(array, np.ndarray) else f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"{what} has to be bool [height, width], as the model saw the image; this is {kind}. "
            "model.preprocessing.mask(...) makes one from a mask of the photo."
        )
    return array
