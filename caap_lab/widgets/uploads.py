"""Photos that were dropped into a widget, so that Python calls in this kernel can open them by name."""

from collections import OrderedDict
from io import BytesIO
from pathlib import Path

from PIL import Image

from caap_lab.errors import InputError
from caap_lab.models.images import load_image

KEPT = 32
"""Number of files kept in memory; each has at most 25 megabytes."""
_files: "OrderedDict[str, bytes]" = OrderedDict()


def uploaded_photo(name: str) -> Image.Image:
    """A photo that was dropped into a widget, by the name that the widget shows.

    ```python
    photo = cl.widgets.uploaded_photo("cat.jpg")
    ```

    Args:
        name: Name of the file.

    Returns:
        The photo, as `cl.load_image` returns it.

    Raises:
        InputError: no such photo was dropped into a widget since this kernel started.
    """
    if name not in _files:
        known = f" Dropped photos: {', '.join(_files)}." if _files else ""
        raise InputError(
            f"No photo {name!r} was dropped into a widget since this kernel started.{known} "
            "To open a file, use cl.load_image(path)."
        )
    return read_upload(name, _files[name])


def read_upload(name: str, content: bytes) -> Image.Image:
    """A photo from the bytes of a file.

    Raises:
        InputError: the bytes are not an image, or the image cannot be used.
    """
    try:
        opened = Image.open(BytesIO(content))
    except Image.DecompressionBombError:
        raise InputError(f"{name} has more pixels than can be decoded safely; scale it down.") from None
    except Exception:  # each of Pillow's formats raises its own errors
        raise InputError(f"{name} is not an image in a format that Pillow can read, or it is damaged.") from None
    try:
        return load_image(opened)
    except InputError as error:
        raise InputError(str(error).replace("The image", name, 1)) from None


def keep_upload(name: str, content: bytes) -> str:
    """Store a photo's file and return its name, with a number added if another photo already has that name."""
    path, own, number = Path(name), name, 2
    while _files.get(own, content) != content:
        own, number = f"{path.stem} ({number}){path.suffix}", number + 1
    _files[own] = content
    _files.move_to_end(own)
    while len(_files) > KEPT:
        _files.popitem(last=False)
    return own
