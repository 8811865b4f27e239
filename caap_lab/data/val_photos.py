"""ImageNet's validation photos: in one folder, in class folders, or in parquet files."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from caap_lab.data.folders import list_folder
from caap_lab.data.parquet import ParquetPhoto, Row, find_parquet, read_rows
from caap_lab.data.wordnet import wordnet_index
from caap_lab.errors import InputError
from caap_lab.models.images import load_image

LOOKED_FOR = (
    "photos ILSVRC2012_val_00000001.JPEG, flat or in folders such as n01440764, or validation-00000-of-*.parquet, here "
    "or in data/"
)
_PLACES = (
    *("", "val", "ILSVRC2012_img_val", "CLS-LOC/val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val"),
    *("val_images", "data/val_images"),
)
_PHOTO = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)(?:_(n\d{8})(?!\d))?")


class ValPhoto(NamedTuple):
    """A validation photo."""

    where: Path | ParquetPhoto
    named: int | None = None
    """Class from the WordNet id in its name, as in ILSVRC2012_val_00000001_n01751748.JPEG."""
    sorted: int | None = None
    """Class from its class folder, or from its row in a parquet file."""

    @property
    def folder(self) -> Path:
        """The folder of its file."""
        return (self.where.file if isinstance(self.where, ParquetPhoto) else self.where).parent

    @property
    def read_image(self) -> Callable[[], Image.Image]:
        """A function that loads it."""
        return self.where.load if isinstance(self.where, ParquetPhoto) else partial(load_image, self.where)


def photo_number(name: str) -> int | None:
    """Number in a validation photo's file name or path; None for other names."""
    found = _PHOTO.search(name)
    return int(found[1]) if found else None


def photo_name(number: int) -> str:
    """Name of a validation photo, without a suffix."""
    return f"ILSVRC2012_val_{number:08d}"


def find_photos(path: Path) -> dict[int, ValPhoto]:
    """Validation photos by number, in this folder or where archives put them; empty if there are none.

    Raises:
        InputError: two photos have the same number, or the files are not part of the validation set.
    """
    for place in _PLACES:
        if photos := photos_in(path / place):
            return photos
    return _by_number(map(_of_row, read_rows(find_parquet(path))))


def photos_in(folder: Path) -> dict[int, ValPhoto]:
    """Validation photos by number, from one folder and its class folders.

    Raises:
        InputError: two photos have the same number, or a name has a WordNet id that is not in ImageNet-1k.
    """
    inside = list_folder(folder)
    own_class = wordnet_index().get(folder.name)
    found = [_of_file(folder / name, own_class) for name in inside.photos]
    for name in inside.folders:
        if name in wordnet_index():
            of_class = folder / name
            found += [_of_file(of_class / photo, wordnet_index()[name]) for photo in list_folder(of_class).photos]
    return _by_number(found)


def _of_file(file: Path, folder_class: int | None) -> tuple[int | None, ValPhoto]:
    number, named = _told(file.name, str(file))
    return number, ValPhoto(file, named, folder_class)


def _of_row(row: Row) -> tuple[int, ValPhoto]:
    number, named = _told(row.path or "", str(row.file))
    if number is None:
        raise InputError(
            f"{row.file} does not say which validation photo is in a row: the path of its image is {row.path!r}, not a "
            "name like ILSVRC2012_val_00000001.JPEG. The rows are not in the order of the photos, so the names are "
            "unknown. ILSVRC/imagenet-1k on the Hugging Face hub has them."
        )
    return number, ValPhoto(row.photo(photo_name(number)), named, _class(row, photo_name(number)))


def _class(row: Row, name: str) -> int:
    label: Any = row.label
    if not isinstance(label, int) or not 0 <= label < len(wordnet_index()):
        raise InputError(f"{row.file} gives {name} the label {label}, where a class 0 to 999 should be.")
    return label


def _told(name: str, where: str) -> tuple[int | None, int | None]:
    """Number and class from a name."""
    found = _PHOTO.search(name)
    if found is None:
        return None, None
    if found[2] and found[2] not in wordnet_index():
        raise InputError(f"{where} has the name {name}, but {found[2]} is not a WordNet id of ImageNet-1k.")
    return int(found[1]), wordnet_index()[found[2]] if found[2] else None


def _by_number(found: Iterable[tuple[int | None, ValPhoto]]) -> dict[int, ValPhoto]:
    photos: dict[int, ValPhoto] = {}
    for number, photo in found:
        if number is not None and photos.setdefault(number, photo) is not photo:
            raise InputError(
                f"There are two photos {photo_name(number)}: {photos[number].where} and {photo.where}. Keep one."
            )
    return photos
