"""Corrupted images for tracing: an object, or everything, replaced by a blank or another image, blurred or noised."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from caap_lab.checks import check_choice, check_seed, is_number
from caap_lab.engine.blanks import IMAGE_BLANKS, blank_image
from caap_lab.errors import InputError
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.batches import check_images, is_single

HOW = ("blank", "blur", "noise", "swap")
_BLUR_SHARE = 1 / 12
"""Default standard deviation of the blur, as a fraction of the image's shorter side: parts of objects disappear."""
_NOISE = 0.5
"""Default standard deviation of the noise, for pixel values from 0 to 1."""

Picture = Float[Tensor, "3 height width"]
Mask = Bool[np.ndarray, "height width"]


def corrupt(
    model: HookedModel,
    images: Images,
    how: str = "blur",
    *,
    masks: Any = None,
    amount: float | None = None,
    blank: Any = "mean",
    other: Images | None = None,
    other_mask: Any = None,
    seed: int = 0,
) -> Float[Tensor, "3 height width"] | Float[Tensor, "image 3 height width"]:
    """Images in which an object is removed or changed, as the corrupted side of `cl.trace`.

    ```python
    blurred = cl.corrupt(model, photo, "blur", masks=dog)          # the dog is blurred, the rest is unchanged
    swapped = cl.corrupt(model, photo, "swap", masks=dog, other="cat.jpg", other_mask=cat)
    cl.trace(model, photo, swapped)
    ```

    Args:
        model: The model for which the input is prepared.
        images: One image or several.
        how: "blank" sets pixels to those of `blank`; "blur" applies a Gaussian blur with reflected borders; "noise"
            adds Gaussian noise to each pixel and channel, and clips to valid pixel values; "swap" inserts `other` into
            the bounding box of the mask, resized to fit.
        masks: Which pixels: for each image one bool mask [H, W] at the resolution of the model's input
            (`model.preprocessing.mask` returns one), or [rows, columns] of patches. None for the whole image.
        amount: Standard deviation: of the blur in pixels (by default a twelfth of the shorter side), or of the noise as
            a fraction of the range from black to white (by default 0.5).
        blank: For how="blank": "white", "black", "mean", "noise", "blurred_noise" or an image, see `cl.blanks`.
        other: For how="swap": the image that is inserted.
        other_mask: For how="swap": bool mask of the object in `other`, whose box is inserted; None for the whole image.
        seed: Seed of the noise.

    Returns:
        The model's input, which `model.preprocess` does not change: [3, H, W] for one image, otherwise [image, 3, H,
        W]. Pixels outside the masks are exactly those of the images.

    Raises:
        InputError: a mask is missing, empty or has the wrong shape, or an option belongs to another `how`.
    """
    check_kind(model, "corrupt", tuple(KINDS))
    check_choice("how", how, HOW)
    check_seed(seed)
    if amount is not None and (how not in ("blur", "noise") or not is_number(amount) or not 0 < amount < math.inf):
        raise InputError(f"amount={amount!r} must be a finite number above 0, for how='blur' or how='noise'.")
    if how == "swap" and (other is None or masks is None):
        raise InputError("how='swap' needs masks, whose box is filled, and other, the image that is inserted.")
    if how != "swap" and (other is not None or other_mask is not None):
        raise InputError("other and other_mask are only for how='swap'.")
    if how == "blank" and not (blank in IMAGE_BLANKS if isinstance(blank, str) else is_single(blank)):
        raise InputError(f"blank={blank!r} must be one of {', '.join(IMAGE_BLANKS)}, or an image.")
    singles = check_images(images)
    batch = model.preprocess(singles)
    areas = [_pixels(model, mask, f"of image {row}") for row, mask in enumerate(_one_each(masks, images, len(singles)))]
    change = _change(model, how, amount, blank, other, other_mask, seed)
    changed = torch.stack([change(picture, area) for picture, area in zip(batch, areas, strict=True)])
    return changed[0] if is_single(images) else changed


def _change(
    model: HookedModel, how: str, amount: float | None, blank: Any, other: Any, other_mask: Any, seed: int
) -> Callable[[Picture, Mask], Picture]:
    """The function that corrupts one image."""
    if how == "blank":
        flat = blank_image(model, blank, seed)
        assert flat is not None
        return lambda picture, area: _inside(area, flat[0], picture)
    if how == "blur":
        sigma = min(model.image_size) * _BLUR_SHARE if amount is None else float(amount)
        return lambda picture, area: _inside(area, _blurred(picture, sigma), picture)
    if how == "noise":
        generator = torch.Generator(device="cpu").manual_seed(seed)
        spread = _NOISE if amount is None else float(amount)
        return lambda picture, area: _inside(area, _noised(model, picture, spread, generator), picture)
    put_in = model.preprocess(other)
    if len(put_in) != 1:
        raise InputError("other must be one image.")
    top, left, bottom, right = _box(_pixels(model, other_mask, "of the other image"))
    part = put_in[:, :, top:bottom, left:right]
    return lambda picture, area: _filled(picture, area, part)


def _inside(area: Mask, new: Picture, old: Picture) -> Picture:
    return torch.where(torch.from_numpy(area).to(old.device), new.to(old), old)


def _blurred(picture: Picture, sigma: float) -> Picture:
    pixels = picture.detach().cpu().double().numpy()
    return torch.from_numpy(gaussian_filter(pixels, (0, sigma, sigma), mode="reflect"))


def _noised(model: HookedModel, picture: Picture, spread: float, generator: torch.Generator) -> Picture:
    noise = torch.randn(picture.shape, generator=generator, dtype=torch.float32, device="cpu").to(picture)
    mean, std = (picture.new_tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    return ((picture * std + mean + spread * noise).clamp(0, 1) - mean) / std


def _filled(picture: Picture, area: Mask, part: Float[Tensor, "1 3 rows cols"]) -> Picture:
    top, left, bottom, right = _box(area)
    size = (bottom - top, right - left)
    new = picture.clone()
    new[:, top:bottom, left:right] = F.interpolate(part, size, mode="bilinear", antialias=True)[0]
    return new


def _box(area: Mask) -> tuple[int, int, int, int]:
    """First row and column, and one past the last row and column."""
    rows, cols = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def _one_each(masks: Any, images: Images, count: int) -> list[Any]:
    if masks is None:
        return [None] * count
    if is_single(images) and not isinstance(masks, (list, tuple)):
        return [masks]
    if not isinstance(masks, (list, tuple)) or len(masks) != count:
        raise InputError(f"masks needs a list with one mask for each of the {count} images.")
    return list(masks)


def _pixels(model: HookedModel, mask: Any, whose: str) -> Mask:
    """A mask at the resolution of the model's input."""
    if mask is None:
        return np.ones(model.image_size, dtype=bool)
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    sizes = (model.image_size, model.grid)
    if not isinstance(array, np.ndarray) or array.dtype != bool or array.shape not in sizes:
        kind = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(mask).__name__
        pixels, patches = (" x ".join(map(str, size)) for size in sizes)
        raise InputError(
            f"The mask {whose} must be bool, with {pixels} pixels (the model's input) or {patches} patches; this "
            f"is {kind}. Use model.preprocessing.mask(...) to make one from a mask of the photo."
        )
    if not array.any():
        raise InputError(f"The mask {whose} selects no pixels.")
    if array.shape == model.image_size:
        return array
    rows, cols = (np.arange(size) * cells // size for size, cells in zip(model.image_size, model.grid, strict=True))
    return array[rows][:, cols]
