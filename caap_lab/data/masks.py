"""Masks from files, aligned with their photo: same size, same orientation."""

import struct
import warnings
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from caap_lab.data.parquet import ParquetPhoto
from caap_lab.errors import InputError
from caap_lab.models.images import check_photo

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_mask(file: Path, photo: Path | ParquetPhoto) -> Image.Image:
    """A mask in its own colour mode, upright like the photo from `load_image`.

    A mask refers to the photo's stored pixels, so the photo's EXIF orientation is applied to it, unless it has its own
    or was made from the upright photo, which its size shows.

    Args:
        file: The mask; pixel values are kept.
        photo: The photo; only the first bytes of a file are read.

    Raises:
        InputError: a file is missing, damaged or not an image, or the two differ in size.
    """
    check_photo(file)
    if isinstance(photo, Path):
        check_photo(photo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as `load_image` does
        with Image.open(photo) if isinstance(photo, Path) else photo.open() as image:
            stored, turn = image.size, _orientation(image)
        upright = stored[::-1] if turn in _SIDEWAYS else stored
        with Image.open(file) as image:
            try:
                image.load()
            except Exception as error:  # each of Pillow's formats raises its own errors
                raise InputError(f"{file} is truncated or damaged: {error}") from error
            own = _orientation(image)
            image.getexif()[ExifTags.Base.Orientation] = turn if own == 1 and image.size == stored else own
            mask = ImageOps.exif_transpose(image)
            mask.format = image.format
    if mask.size != upright:
        raise InputError(
            f"The mask {file} has {mask.width} x {mask.height} pixels but its photo {upright[0]} x {upright[1]}. "
            "A mask must have the photo's size."
        )
    return mask


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, OSError, ValueError, KeyError, TypeError, struct.error):
        return 1  # damaged EXIF data has no orientation, as in `load_image`
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
