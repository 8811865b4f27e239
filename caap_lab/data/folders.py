"""Listing of folders: only names, one listing per folder, so that 50,000 files open quickly."""

import mimetypes
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from PIL import Image

from caap_lab.data.image_set import Regions, Sample
from caap_lab.errors import InputError
from caap_lab.models.images import check_photo, load_image

_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif"),
        *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
_UNREADABLE = frozenset([".heic", ".heif", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"])
_SNIFFED = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
"""Pillow's formats that a file without a known extension may have."""
_NO_DATA = frozenset(["__MACOSX", "@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information"])
"""Folders that operating systems and network drives create."""
_SHOWN = 5


class Listing(NamedTuple):
    """The sorted names in a folder, without hidden ones and those that operating systems add."""

    folder: Path
    folders: list[str]
    files: list[str]

    @property
    def photos(self) -> list[str]:
        """Files that are images: by their extension or, if that is unknown, by their first bytes.

        Raises:
            InputError: a photo is a dangling link, a pipe, or in a format that needs a Pillow plugin.
        """
        return [name for name in self.files if _is_photo(self.folder, name)]


def list_folder(folder: Path) -> Listing:
    """The listing of a folder; empty if it does not exist.

    Raises:
        InputError: it cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _NO_DATA:
                    continue
                (folders if entry.is_dir() else files).append(entry.name)
                if not entry.is_dir() and not entry.is_file() and _suffix(entry.name) in _SUFFIXES:
                    check_photo(folder / entry.name)  # raises: it is a dangling link or a pipe
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}).") from None
    return Listing(folder, sorted(folders), sorted(files))


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _is_photo(folder: Path, name: str) -> bool:
    suffix = _suffix(name)
    if suffix in _SUFFIXES:
        return True
    if suffix in _UNREADABLE:
        Image.init()
        if suffix not in Image.registered_extensions():
            raise InputError(
                f"{folder / name} is a photo in a format that this Pillow cannot read. Convert it to JPEG or PNG, or "
                "remove it from the folder."
            )
        return True
    known, _ = mimetypes.guess_type(name)
    if known is not None and not known.startswith("image/"):
        return False
    file = folder / name
    if not file.is_file():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(file, formats=_SNIFFED).close()
        except Image.DecompressionBombError:
            return True  # an error with the reason when it is read
        except Exception:  # each of Pillow's formats raises its own errors
            return False
    return True


def read_lines(file: Path) -> list[str]:
    """The non-empty lines of a text file.

    Raises:
        InputError: there is no such file, or it is not text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} cannot be read as text in UTF-8 ({error}). Save it in UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]


def check_listed(file: Path, folder: Path, names: Sequence[str]) -> None:
    """Raise InputError for a list of files that do not all exist.

    Args:
        file: The list.
        folder: The folder in which they should be.
        names: Their paths inside the folder, with "/".

    Raises:
        InputError: some are missing; the message gives the first, and their number.
    """
    there: dict[str, set[str]] = {}
    missing = []
    for name in names:
        inside, _, own = name.rpartition("/")
        if inside not in there:
            there[inside] = set(list_folder(folder / inside).files)
        if own not in there[inside]:
            missing.append(name)
    if missing:
        raise InputError(
            f"{file} lists {missing[0]}, which is not in {folder} ({len(missing)} of {len(names)} are missing)."
        )


def layout_error(path: Path, looked_for: str, home: str = "") -> InputError:
    """The error for a folder without the data set: what was looked for, what was found, where to get it.

    Args:
        path: The folder.
        looked_for: Files and folders of the published layout.
        home: Where the data set is published; empty for the user's own photos.
    """
    _, folders, files = list_folder(path)
    found = [*(f"{name}/" for name in folders), *files]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    there = f"{', '.join(found[:_SHOWN])}{more}" if found else "nothing"
    return InputError(f"{path} is not laid out as expected. Looked for: {looked_for}. Found: {there}.{origin(home)}")


def origin(home: str) -> str:
    """A sentence that says where to get a data set."""
    return f" The data set comes from {home}; nothing is downloaded." if home else ""


def photo_sample(
    name: str,
    photo: Path,
    labels: tuple[int, ...] = (),
    read_regions: Callable[[], Regions] | None = None,
) -> Sample:
    """A sample whose image is a file; its label is the first of its correct classes."""
    return Sample(name, partial(load_image, photo), labels[0] if labels else None, read_regions, labels[1:])
