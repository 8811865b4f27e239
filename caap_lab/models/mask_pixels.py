"""Which pixels a mask marks as the object, for any way of storing masks.

The colours that a mask shows count, not the palette indices in its file: the object is everything that is not black or,
in a partly transparent picture, everything that is not transparent. Along soft edges the threshold is half of the
object's value.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt8
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from caap_lab.errors import InputError

VOID, _VOC_CLASSES = 255, 20
_LOSSY = ("JPEG", "MPO", "JPEG2000")
_PERHAPS_LOSSY = ("WEBP", "AVIF")
_NEAR = 8 / 255  # how far lossy compression moves uniform areas of a mask away from black and white
_MOST_NUMBERS = 16  # more values than this, none of which fills an area, are shades
_EVEN = 0.1  # if a larger fraction of the grey pixels lies in uniform areas, these are not edges

Pixels = Bool[np.ndarray, "height width"]


class MaskPixels(NamedTuple):
    """The object of a mask, and the pixels that the mask leaves undecided."""

    inside: Pixels
    void: Pixels | None = None


def object_pixels(mask: Image.Image | Num[np.ndarray, "height width"] | Pixels, label: str) -> MaskPixels:
    """The pixels of the object, and those that the mask leaves undecided.

    - Two values: the object is the one that is not zero.
    - Class numbers up to 20 and 255, as in PASCAL VOC: 255 is undecided, all other numbers except 0 are the object.
    - Other numbers, below white: the object is everything except zero.
    - Shades along edges: the object is everything from half of white or, if that is not reached, of its own value.
    - Colours: everything that is not black. A partly transparent picture: everything that is not transparent.

    Args:
        mask: A PIL image of any colour mode, or one channel of numbers.
        label: Name of the mask in messages.

    Raises:
        InputError: the mask is ambiguous, or holds NaN or negative numbers.
    """
    if isinstance(mask, np.ndarray):
        return _from_values(mask, label, lossy=False)
    lossy = mask.format in _LOSSY or (mask.format in _PERHAPS_LOSSY and _looks_lossy(mask))
    if mask.mode == "P" and (mask.getpalette("RGB") or [0, 0, 0])[:3] == [0, 0, 0]:  # indices may be class numbers
        voc = _voc(np.asarray(mask), np.unique(np.asarray(mask)))
        if voc is not None:
            return voc
    if mask.mode in ("1", "F") or mask.mode.startswith("I"):
        return _from_values(np.asarray(mask), label, lossy)
    if mask.has_transparency_data:
        rgba = np.asarray((mask.convert("LA") if mask.mode == "La" else mask).convert("RGBA"))
        if rgba[..., 3].min() < rgba[..., 3].max():
            return MaskPixels(_opaque(rgba, label))
        if rgba[0, 0, 3] == 0:
            raise InputError(f"{label} is transparent everywhere, so it shows no object.")
    rgb = np.asarray(mask.convert("RGB"))
    if mask.mode == "P" and not rgb.any() and np.asarray(mask).any():
        raise InputError(f"{label} has several black colours in its palette. Save it in greyscale: 0 and 255.")
    if (rgb == rgb[..., :1]).all():
        return _from_values(rgb[..., 0], label, lossy)
    return MaskPixels(_from_colours(rgb, label, lossy))


def _from_values(values: np.ndarray, label: str, lossy: bool) -> MaskPixels:
    """From one channel."""
    if values.dtype == bool:
        return MaskPixels(values)
    present = np.unique(values)
    if values.dtype.kind not in "uif" or not np.isfinite(present).all():
        what = f"values of kind {values.dtype}" if values.dtype.kind not in "uif" else "NaN or infinity"
        raise InputError(f"{label} holds {what}. A mask is True or not zero where the object is.")
    if present[0] < 0:
        raise InputError(f"{label} holds negative values. A mask is zero outside the object and positive inside.")
    voc = None if lossy else _voc(values, present)
    if voc is not None:
        return voc
    if np.count_nonzero(present) <= 1:
        return MaskPixels(values != 0)

    top = float(present[-1])
    white = 1.0 if top <= 1 else 255.0 if top <= 255 else max(top, 65535.0)
    reaches_white = top >= white * (1 - _NEAR)
    if reaches_white and present[0] >= white * (1 - _NEAR):
        return MaskPixels(values != 0)  # white everywhere, apart from compression artefacts
    scale = white if reaches_white else _largest_area(values)
    even = _has_even_areas(values, scale * _NEAR, scale * (1 - _NEAR))
    if even and reaches_white:
        raise InputError(
            f"{label} has grey areas between black and white, so its object is ambiguous: these may be objects or "
            "undecided pixels. Save the object as 255 and the rest as 0, or use class numbers below 255."
        )
    numbers = not reaches_white and not lossy and bool((present == np.rint(present)).all())
    few = numbers and (top <= _VOC_CLASSES or len(present) <= _MOST_NUMBERS)
    inside = values != 0 if even or few else 2 * values.astype(np.float64) >= scale
    return MaskPixels(_not_everywhere(inside, label))


def _voc(values: np.ndarray, present: np.ndarray) -> MaskPixels | None:
    """A mask with class numbers as in PASCAL VOC, where 255 is the undecided border; None for any other mask."""
    others = np.setdiff1d(present, [0, VOID])
    if len(others) == 0 or others.max() > _VOC_CLASSES or not (others == np.rint(others)).all():
        return None
    void = values == VOID
    return MaskPixels((values != 0) & ~void, void) if void.any() else None


def _opaque(rgba: UInt8[np.ndarray, "height width 4"], label: str) -> Pixels:
    alpha = rgba[..., 3].astype(np.int32)
    inside = 2 * alpha >= alpha.max()
    rgb = rgba[inside][:, :3].astype(np.int32)
    seen = np.unique(rgb @ (1 << 16, 1 << 8, 1))
    if len(seen) == 2 and seen[0] == 0 and seen[1] % 0x010101 == 0:
        raise InputError(
            f"{label} is black and white with transparent areas elsewhere, so its object is ambiguous. Save it "
            "without transparency, or with the object in one colour."
        )
    return inside


def _from_colours(rgb: UInt8[np.ndarray, "height width 3"], label: str, lossy: bool) -> Pixels:
    brightest = rgb.max(axis=2)
    scale = _largest_area(brightest)
    few = not lossy and len(np.unique(brightest)) <= _MOST_NUMBERS
    if few or _has_even_areas(brightest, scale * _NEAR, scale * (1 - _NEAR)):
        return _not_everywhere(brightest > (scale * _NEAR if lossy else 0), label)
    return _not_everywhere(2 * brightest.astype(np.float64) >= scale, label)


def _looks_lossy(mask: Image.Image) -> bool:
    """True unless the values are small class numbers, or some between black and the object's fill areas."""
    brightest = np.asarray(mask.convert("RGB")).max(axis=2)
    level = _largest_area(brightest)
    classes, void = (brightest > 0) & (brightest <= _VOC_CLASSES), brightest == VOID
    if level <= _VOC_CLASSES or ((classes | void | (brightest == 0)).all() and classes.sum() > void.sum()):
        return False
    return not _has_even_areas(brightest, level * _NEAR, level * (1 - _NEAR))


def _largest_area(values: np.ndarray) -> float:
    """The largest value that fills an area, which resizing exceeds along edges; the largest one if none does."""
    areas = values[maximum_filter(values, 3) == minimum_filter(values, 3)]
    return float(areas.max(initial=0) or values.max())


def _has_even_areas(values: np.ndarray, low: float, high: float) -> bool:
    """True if values between black and white fill areas; along soft edges, neighbouring pixels differ."""
    between = (values > low) & (values < high)
    if not between.any():
        return False
    even = between & (maximum_filter(values, 3) == minimum_filter(values, 3))
    return bool(even.sum() > _EVEN * between.sum())


def _not_everywhere(inside: Pixels, label: str) -> Pixels:
    if inside.all():
        raise InputError(
            f"{label} has several values or colours, none of which is black, so its object is ambiguous. Save the "
            "object as 255 and the rest as 0."
        )
    return inside
