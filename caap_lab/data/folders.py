"""Looking into folders: names only, one listing a folder, so that 50,000 files open in a moment."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from caap_lab.data.image_set import Regions, Sample
from caap_lab.errors import InputError
from caap_lab.hooked.images import load_image

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SHOWN = 5


class Listing(NamedTuple):
    """What is in a folder: names in sorted order, without hidden ones and what macOS adds to archives."""

    folders: list[str]
    files: list[str]

    @property
    def photos(self) -> list[str]:
        """Files that are named like images."""
        return [name for name in self.files if name.lower().endswith(_SUFFIXES)]


def list_folder(folder: Path) -> Listing:
    """List a folder; one that does not exist is empty.

    Raises:
        InputError: it may not be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    (folders if entry.is_dir() else files).append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}).") from None
    return Listing(sorted(folders), sorted(files))


def read_lines(file: Path) -> list[str]:
    """A text file's lines that are not empty.

    Raises:
        InputError: there is no such file, or it is not text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}).") from None
    return [line.strip() for line in lines if line.strip()]


def layout_error(path: Path, looked_for: str, home: str = "") -> InputError:
    """The error for a folder that does not hold the data set: what was looked for, what is there, where to get it.

    Args:
        path: The folder.
        looked_for: Files and folders of the published layout.
        home: Where the data set is published; nothing for the user's own photos.
    """
    folders, files = list_folder(path)
    found = [*(f"{name}/" for name in folders), *files]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    there = f"{', '.join(found[:_SHOWN])}{more}" if found else "nothing"
    return InputError(f"{path} is not laid out as expected. Looked for: {looked_for}. Found: {there}.{origin(home)}")


def origin(home: str) -> str:
    """The sentence that says where to get a data set."""
    return f" The data set comes from {home}; nothing is downloaded." if home else ""


def photo_sample(
    name: str,
    photo: Path,
    labels: tuple[int, ...] = (),
    read_regions: Callable[[], Regions] | None = None,
) -> Sample:
    """A sample whose image is a file; the first of its right classes is its label."""
    return Sample(name, partial(load_image, photo), labels[0] if labels else None, read_regions, labels[1:])
