"""The images of a widget: those that the user gave, and later uploads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import check_images, is_single
from caap_lab.widgets.image_picker import ImagePicker
from caap_lab.widgets.pixels import png
from caap_lab.widgets.uploads import keep_upload, read_upload

THUMBNAIL = 96


@dataclass(frozen=True, eq=False)
class Photo:
    """An image as model input.

    Attributes:
        name: Name of the image.
        call: The Python expression of the image.
        x: The model's input.
        pixels: The image for display.
    """

    name: str
    call: str
    x: Float[Tensor, "1 3 height width"]
    pixels: UInt8[np.ndarray, "height width 3"]

    @cached_property
    def png(self) -> bytes:
        """The photo as a PNG."""
        return png(self.pixels)

    @property
    def thumbnail(self) -> bytes:
        """A small PNG."""
        small = Image.fromarray(self.pixels)
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return png(np.asarray(small))


def photos_of(model: HookedModel, images: "Images | ImageSet") -> list[Photo]:
    """All images that were given.

    Args:
        model: The model that prepares them.
        images: Anything the model accepts; a data set; or objects with an image, such as demo scenes.

    Raises:
        InputError: an image cannot be used, or there is none.
    """
    if isinstance(images, ImageSet):
        return [_photo(model, sample.name, f"images[{i}].image", sample.image) for i, sample in enumerate(images)]
    if hasattr(images, "image"):
        return [_photo(model, "image", "image.image", images.image)]
    if isinstance(images, (list, tuple)) and images and all(hasattr(item, "image") for item in images):
        return [_photo(model, f"image {i}", f"images[{i}].image", item.image) for i, item in enumerate(images)]
    singles = check_images(images)
    single = is_single(images)
    return [_photo(model, *_named(image, place, single), image) for place, image in enumerate(singles)]


def uploaded(model: HookedModel, name: str, content: bytes) -> Photo:
    """An image from the bytes of a file.

    Raises:
        InputError: the bytes are not an image, or the image cannot be used.
    """
    image = read_upload(name, content)
    kept = keep_upload(name, content)
    return _photo(model, kept, f"cl.widgets.uploaded_photo({kept!r})", image)


def dropped(model: HookedModel, picker: ImagePicker) -> Photo | None:
    """The image of the file that was dropped on a picker; None if there is no file, or if it is not a valid image."""
    name, content = picker.file
    if not name:
        return None
    try:
        photo = uploaded(model, name, content)
    except InputError as error:
        picker.refuse(str(error))
        return None
    return photo


def offer(picker: ImagePicker, photos: Sequence[Photo]) -> None:
    """Show photos in a picker."""
    picker.names = [photo.name for photo in photos]
    picker.pictures = [photo.thumbnail for photo in photos]


def _photo(model: HookedModel, name: str, call: str, image: Any) -> Photo:
    x = model.preprocess(image)
    return Photo(name, call, x, model.preprocessing.to_rgb(x[0]))


def _named(image: Any, place: int, single: bool) -> tuple[str, str]:
    if isinstance(image, (str, Path)):
        return Path(image).name, repr(str(image))
    return ("image", "image") if single else (f"image {place}", f"images[{place}]")
