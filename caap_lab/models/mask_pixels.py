"""Which pixels a mask marks as the object, whatever form the mask is stored in.

What a mask shows counts, not how its file numbers the colours: anything that is not black, or, where the picture is
partly transparent, anything that is not transparent. Along soft edges, half covered is the border.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt8
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from caap_lab.errors import InputError

VOID, _VOC_CLASSES = 255, 20
_LOSSY = ("JPEG", "MPO", "JPEG2000")
_NEAR = 8 / 255  # how far lossy compression takes the even areas of a mask off black and white
_MOST_NUMBERS = 16  # more values than this, none of them with areas of its own, are shades
_EVEN = 0.1  # share of the pixels between black and white that lie in even areas, beyond which these are no edges

Pixels = Bool[np.ndarray, "height width"]


class MaskPixels(NamedTuple):
    """A mask's object and what it leaves open."""

    inside: Pixels
    void: Pixels | None = None


def object_pixels(mask: Image.Image | Num[np.ndarray, "height width"] | Pixels, label: str) -> MaskPixels:
    """The object's pixels, and those that the mask leaves open.

    - Two values: the one that is not zero is the object.
    - Class numbers up to 20 with 255, as PASCAL VOC has them: 255 is left open, all other numbers are the object.
    - Other numbers, below white: all but zero are the object.
    - Shades between black and white along edges: the object from half of white on.
    - Colours: all that is not black. A picture that is partly transparent: all that is not transparent.

    Args:
        mask: A PIL image of any colour mode, or one channel of numbers.
        label: What messages call it.

    Raises:
        InputError: what the mask shows can be read in more than one way, or it holds NaN or negative numbers.
    """
    if isinstance(mask, np.ndarray):
        return _from_values(mask, label, lossy=False)
    lossy = mask.format in _LOSSY
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
        raise InputError(f"{label} has several colours in its palette that are all black. Save it in grey: 0 and 255.")
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
    slack = _NEAR if reaches_white or lossy else 0.0
    scale = white if reaches_white else top
    if reaches_white and present[0] >= white * (1 - _NEAR):
        return MaskPixels(values != 0)  # white everywhere, but for compression
    even = _has_even_areas(values, scale * slack, scale * (1 - slack))
    if even and reaches_white:
        raise InputError(
            f"{label} has areas in shades between black and white, so that its object cannot be told: these may be "
            "objects, or pixels left open. Save the object as 255 and all else as 0, or give class numbers below 255."
        )
    few = not reaches_white and not lossy and (top <= _VOC_CLASSES or len(present) <= _MOST_NUMBERS)
    inside = values != 0 if even or few else 2 * values.astype(np.float64) >= scale
    return MaskPixels(_not_everywhere(inside, label))


def _voc(values: np.ndarray, present: np.ndarray) -> MaskPixels | None:
    """Class numbers the way of PASCAL VOC, where 255 is the border left open; None if it is another mask."""
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
            f"{label} is black and white, and transparent at other places, so that its object can be either. Save it "
            "without transparency, or with the object in one colour."
        )
    return inside


def _from_colours(rgb: UInt8[np.ndarray, "height width 3"], label: str, lossy: bool) -> Pixels:
    brightest = rgb.max(axis=2)
    top = int(brightest.max())
    few = not lossy and len(np.unique(brightest)) <= _MOST_NUMBERS
    if few or _has_even_areas(brightest, top * _NEAR, top * (1 - _NEAR)):
        return _not_everywhere(brightest > (top * _NEAR if lossy else 0), label)
    return _not_everywhere(2 * brightest.astype(np.int32) >= top, label)


def _has_even_areas(values: np.ndarray, low: float, high: float) -> bool:
    """True if what lies between black and white forms areas; along soft edges, neighbours differ."""
    between = (values > low) & (values < high)
    if not between.any():
        return False
    even = between & (maximum_filter(values, 3) == minimum_filter(values, 3))
    return bool(even.sum() > _EVEN * between.sum())


def _not_everywhere(inside: Pixels, label: str) -> Pixels:
    if inside.all():
        raise InputError(
            f"{label} shows several values or colours, none of which is black, so that its object cannot be told. Save "
            "the object as 255 and all else as 0."
        )
    return inside
