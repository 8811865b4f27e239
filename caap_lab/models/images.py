"""Photos from files of any colour mode and orientation, with an error that says why if one is unusable."""

import re
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from caap_lab.errors import InputError

MAX_ASPECT_RATIO = 50
"""Longest divided by shortest side. Resizing the short side to 1024 pixels then needs at most 160 MB."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each EXIF orientation."""


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """A photo as an 8-bit RGB image, upright.

    ```python
    photo = cl.load_image("photo.png")
    ```

    Greyscale (8 and 16 bit), palette, CMYK and YCbCr images are converted; transparent pixels are blended with white;
    the EXIF orientation is applied; the first frame of an animated file is used. A 16-bit file with 8-bit values keeps
    them; one whose maximum lies between that and half of white is an error, since its bit depth is not known. A given
    PIL image is not changed.

    Args:
        source: Path of an image file, or a PIL image.

    Raises:
        InputError: the file is missing, not an image, damaged, too large to decode safely, too thin, or deeper than 8
            bits with an unknown white level.
    """
    if not isinstance(source, (str, Path, Image.Image)):
        raise InputError(f"Expected the path of an image or a PIL image, not {type(source).__name__}.")
    with warnings.catch_warnings():
        # Pillow warns about photos above half its limit and about damaged EXIF data; their pixels are fine.
        warnings.simplefilter("ignore")
        if isinstance(source, Image.Image):
            return _to_rgb(source, "The image")
        path = Path(source)
        with _open(path) as image:
            return _to_rgb(image, str(path))


def check_photo(path: str | Path) -> None:
    """Raise InputError if a file is missing, not an image, too large or too thin, without decoding its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(Path(path)) as image:
            _check_size(image, str(path))


def _open(path: Path) -> Image.Image:
    try:
        _check_file(path)
    except OSError as error:  # a name that is too long, or a folder without permission
        raise InputError(f"{str(path)[:200]} cannot be read: {error.strerror}.") from error
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image in a format that Pillow can read.") from None
    except Image.DecompressionBombError as error:
        pixels = int(re.findall(r"\d+", str(error))[0])
        raise InputError(_too_large(str(path), f"{pixels:,} pixels")) from error
    except Exception as error:  # each of Pillow's formats raises its own errors
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an image file.")
    if not path.exists():
        if str(path).startswith(("http:", "https:")):
            raise InputError(f"{path} is a URL; download the image first and give its path.")
        if path.is_symlink():
            raise InputError(f"{path} is a link to {path.readlink()}, which does not exist.")
        raise InputError(f"There is no image file {path}.")
    if not path.is_file():  # opening a pipe would wait forever
        raise InputError(f"{path} is a pipe or a device, not an image file.")


def _to_rgb(image: Image.Image, label: str) -> Image.Image:
    _check_size(image, label)
    stored_deep = _has_16_bits(image)
    try:
        image.load()
    except Exception as error:  # each of Pillow's formats raises its own errors
        raise InputError(f"{label} is truncated or damaged: {error}") from error
    if stored_deep and not image.mode.startswith(("I", "F")):
        _check_white(int(np.asarray(image.convert("RGB")).max()), 255, label)  # Pillow keeps the upper 8 bits
    if image.mode == "F" or image.mode.startswith("I"):
        rgb = _from_deep_grey(image, label)
    elif image.has_transparency_data:
        rgb = _over_white(image)
    else:
        try:
            rgb = image.convert("RGB")
        except ValueError as error:
            raise InputError(f"{label} has colour mode {image.mode}, which has no RGB form: {error}") from error
    return _upright(rgb, image)


def _has_16_bits(image: Image.Image) -> bool:
    """True for a file of 16 bits per channel that is not loaded yet; Pillow keeps the upper 8 bits of colours."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        last = arguments[-1] if isinstance(arguments, tuple) and arguments else None
        if (
            re.search(r";16[BLN]", str(arguments))
            or codec == "SGI16"
            or (codec, last) in (("ppm", 65535), ("sgi_rle", 2))
        ):
            return True
    return image.format == "JPEG2000" and _jpeg2000_bits(image) == 16


def _jpeg2000_bits(image: Image.Image) -> int | None:
    """Bits per channel, which Pillow drops, from the start of the code stream (ISO 15444-1, A.5.1)."""
    file = getattr(image, "fp", None)
    if file is None:  # loaded before
        return None
    place = file.tell()
    file.seek(0)
    _, found, stream = file.read(1 << 16).partition(b"\xff\x4f\xff\x51")
    file.seek(place)
    return (stream[38] & 0x7F) + 1 if found and len(stream) > 38 else None


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    limit = _pixel_limit()
    if limit is not None and width * height > limit:
        raise InputError(_too_large(label, f"{width} x {height} = {width * height:,} pixels"))
    if min(width, height) < 2:
        raise InputError(f"{label} is {width} x {height} pixels, which is too small.")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"{label} is {width} x {height} pixels, thinner than 1 : {MAX_ASPECT_RATIO}; crop it first.")


def _pixel_limit() -> int | None:
    # Pillow warns above MAX_IMAGE_PIXELS and raises an error above twice that number.
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _too_large(label: str, size: str) -> str:
    return (
        f"{label} has {size}, more than Pillow's limit of {_pixel_limit():,} against decompression bombs. "
        "Scale the image down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
    )


def _from_deep_grey(image: Image.Image, label: str) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise InputError(f"{label} holds {kind} values, whose white level is not defined; save it with 8 or 16 bits.")
    transparent = image.info.get("transparency")
    brightest = int(values.max(initial=0, where=values != transparent if isinstance(transparent, int) else True))
    if brightest > 255:  # otherwise 16- or 32-bit pixels hold 8-bit values
        _check_white(brightest, 65535, label)
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    else:
        grey = values.astype(np.uint8)
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _check_white(brightest: int, white: int, label: str) -> None:
    """Raise InputError for 16-bit files that probably hold 10- to 14-bit values, which would look nearly black."""
    if brightest <= white // 2:
        raise InputError(
            f"{label} is stored with 16 bits but reaches only {brightest / white:.1%} of white, so it would look dark. "
            "If it holds values of fewer bits, scale them: save it with 8 bits, or stretched to 0 to 65535."
        )


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _upright(rgb: Image.Image, original: Image.Image) -> Image.Image:
    rgb.info = {}  # otherwise the rotation would be applied again if this image is passed to load_image
    try:
        orientation = original.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, OSError, ValueError, KeyError, TypeError, struct.error):
        return rgb  # damaged EXIF data has no usable rotation
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb
