"""From masks of objects to the patches of each object."""

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
    """The object that each patch belongs to.

    A patch belongs to the object that covers the largest fraction of it, if that is at least `overlap`; if several
    cover the same fraction, to the one with the fewest pixels (a keyboard rather than the laptop that contains it),
    then to the first. All other patches are background.

    Args:
        masks: One bool mask [H, W] as the model saw it (`model.preprocessing.mask` makes one), or a list or dict of
            them, one per object; masks of the same pixels count as one object.
        model: The model, for its grid.
        ignored: Pixels that the annotation leaves undecided, bool [H, W]. Fractions are of a patch's other pixels;
            patches with fewer than half of their pixels decided are left out.
        overlap: Smallest fraction, from 0 to 1; with 0, any pixel counts.

    Returns:
        The index of the object in `masks`, -1 for background, -2 for patches left out.

    Raises:
        InputError: a mask is not bool, or has the wrong size.
    """
    given = masks.values() if isinstance(masks, Mapping) else [masks] if getattr(masks, "ndim", 0) == 2 else list(masks)
    objects = [_checked("A mask", mask) for mask in given]
    if not objects:
        raise InputError("An image has no object masks.")
    known = np.zeros_like(objects[0]) if ignored is None else _checked("The mask of ignored pixels", ignored)
    if any(mask.shape != known.shape for mask in objects):
        raise InputError("The masks of an image, and that of its ignored pixels, differ in size.")
    # For masks with the same pixels, the index of the first.
    places = {mask.tobytes(): place for place, mask in reversed(list(enumerate(objects)))}
    order = sorted(places.values(), key=lambda place: (int(objects[place].sum()), place))
    shares = np.stack([mask_share(objects[place] & ~known, model) for place in order])
    open_share = mask_share(~known, model)
    best = shares.max(axis=0)
    owner = np.array(order)[shares.argmax(axis=0)]  # the first of equal fractions
    regions = np.where((best > 0) & (best >= overlap * open_share), owner, BACKGROUND)
    return np.where(open_share >= 0.5, regions, LEFT_OUT)


def _checked(what: str, mask: Any) -> Bool[np.ndarray, "height width"]:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if not isinstance(array, np.ndarray) or array.dtype != bool or array.ndim != 2:
        kind = type(mask).__name__ if not isinstance(array, np.ndarray) else f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"{what} must be bool [height, width], at the size of the model's input; this is {kind}. "
            "model.preprocessing.mask(...) makes one from a mask of the photo."
        )
    return array
