"""Any folder of photos, with or without labels, and photos with masks."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from unicodedata import normalize

import numpy as np

from caap_lab.data.folders import Listing, layout_error, list_folder, photo_sample
from caap_lab.data.image_set import ImageSet, Regions
from caap_lab.data.labels_file import Entry, class_names, read_labels_file
from caap_lab.data.masks import read_mask
from caap_lab.data.wordnet import wordnet_index
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.mask_pixels import object_pixels

_Masks = tuple[tuple[Path, tuple[int, ...]], ...]


def open_folder(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """A set of the photos in one folder, or in one folder per class.

    Class folders are numbered in the order of their names, or as in ImageNet-1k if all names are its WordNet ids. A
    folder without photos is not a class.

    Args:
        path: The folder.
        source: The text that the user gave.
        labels: A labels file for photos in one folder, instead of labels.json in it.

    Raises:
        InputError: there are no photos, or there are photos both outside and inside class folders, or below these.
    """
    inside = list_folder(path)
    listed = {name: list_folder(path / name) for name in inside.folders}
    by_class = {name: photos for name, found in listed.items() if (photos := found.photos)}
    folders = list(by_class)
    if inside.photos or folders:
        _check_depth(listed.values())
    if inside.photos:
        if folders:
            raise InputError(
                f"{path} has photos in it and also in the folder {folders[0]}. Give a folder of photos, or one with "
                "only one folder per class."
            )
        entries, names = _entries(path, labels, inside.photos)
        samples = [photo_sample(name, path / name, entries[name].labels) for name in inside.photos]
        return ImageSet("folder", source, tuple(samples), names)
    if not folders:
        raise layout_error(path, "photos such as *.jpg and *.png, or a folder of them for each class")
    if labels is not None:
        raise InputError(f"labels={labels} was given, but {path} has class folders, which are labels already.")
    if all(name in wordnet_index() for name in folders):
        classes, index = ClassNames.imagenet1k(), wordnet_index()
    else:
        classes, index = ClassNames(tuple(folders)), {name: position for position, name in enumerate(folders)}
    samples = [
        photo_sample(f"{name}/{photo}", folder / photo, (index[name],))
        for name, photos in by_class.items()
        for folder in [path / name]  # joined once per folder: 50,000 paths take a second
        for photo in photos
    ]
    return ImageSet("folder", source, tuple(samples), classes)


def _check_depth(listings: Iterable[Listing]) -> None:
    """Raise InputError for photos in folders inside these, which would be left out silently."""
    for listing in listings:
        for name in listing.folders:
            below = list_folder(listing.folder / name)
            if below.photos:
                raise InputError(
                    f"{below.folder} has photos, such as {below.photos[0]}, which would be left out. Move them into "
                    f"{listing.folder}, or move the folder away."
                )


def open_masks(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """A set of the photos in "images" with masks in "masks", in the order of the photos' names.

    The masks of photo.jpg are photo.png and photo__*.png, or those that labels.json lists. `object_pixels` defines the
    object of a mask.

    Args:
        path: Folder with images and masks.
        source: The text that the user gave.
        labels: A labels file instead of `path`/labels.json.

    Raises:
        InputError: the layout is different, or a photo has no mask.
    """
    images = list_folder(path / "images")
    photos, files = images.photos, list_folder(path / "masks").photos
    if not photos or not files:
        raise layout_error(path, "images/*.jpg and masks/*.png")
    _check_depth([images])
    entries, names = _entries(path, labels, photos)
    by_stem: dict[str, list[str]] = {_stem(name): [] for name in photos}
    for name in files:
        parts = _stem(name).split("__")  # a photo's own name may hold "__"
        fronts = ("__".join(parts[:count]) for count in range(len(parts), 0, -1))
        by_stem.get(next((front for front in fronts if front in by_stem), ""), []).append(name)
    folder, there = path / "masks", {_normal(name): name for name in files}
    masks = {name: _masks(folder, entries[name], by_stem[_stem(name)], there) for name in photos}
    shared = [name for name in photos if not entries[name].objects]
    if (twins := _twins(shared)) is not None:
        raise InputError(f"{twins[0]} and {twins[1]} would share their masks. Rename one of the photos and its masks.")
    missing = [name for name in photos if not masks[name]]
    if missing:
        raise InputError(
            f"{folder} has no mask {Path(missing[0]).stem}.png for {missing[0]} "
            f"({len(missing)} of {len(photos)} photos have none)."
        )
    samples = []
    for name in photos:
        photo = path / "images" / name
        samples.append(photo_sample(name, photo, entries[name].labels, partial(_read_regions, masks[name], photo)))
    return ImageSet("masks", source, tuple(samples), names)


def _entries(path: Path, labels: Path | None, photos: list[str]) -> tuple[dict[str, Entry], ClassNames | None]:
    """The entries of the labels file by photo, and the classes to which its labels refer."""
    file = labels or path / "labels.json"
    if labels is None and not file.is_file():
        return {name: Entry() for name in photos}, None
    known = {_normal(name): entry for name, entry in read_labels_file(file).items()}
    found = {name: known.get(_normal(name), known.get(_stem(name))) for name in photos}
    if not any(found.values()):
        raise InputError(f"{file} has none of the photos in {path}, such as {photos[0]}.")
    if (twins := _twins([name for name in photos if _normal(name) not in known and found[name]])) is not None:
        raise InputError(f"{file} has {_stem(twins[0])}, which may be {twins[0]} or {twins[1]}. Write the whole name.")
    written = {name.casefold(): name for name in known}
    for name in photos:
        other = written.get(_normal(name).casefold(), written.get(_stem(name).casefold()))
        if found[name] is None and other is not None:
            raise InputError(f"{file} has {other}, but the photo is {name}. Write its name as the file has it.")
    entries = {name: entry or Entry() for name, entry in found.items()}
    return entries, class_names(file, entries.values())


def _normal(name: str) -> str:
    """A file's name as Unicode composes it; macOS and zip files may split "é" into two characters."""
    return normalize("NFC", name)


def _stem(name: str) -> str:
    return Path(_normal(name)).stem


def _twins(photos: Iterable[str]) -> tuple[str, str] | None:
    """Two photos whose names differ only in their ending; None if there are none."""
    met: dict[str, str] = {}
    return next(((met[_stem(name)], name) for name in photos if met.setdefault(_stem(name), name) != name), None)


def _masks(folder: Path, entry: Entry, named_so: list[str], files: dict[str, str]) -> _Masks:
    """Mask files and their classes; `files` has the names in the folder by their composed forms."""
    if not entry.objects:
        return tuple((folder / name, entry.labels) for name in named_so)
    missing = [name for name, _ in entry.objects if _normal(name) not in files]
    if missing:
        raise InputError(f"The labels file lists the mask {missing[0]}, which is not in {folder}.")
    return tuple((folder / files[_normal(name)], labels) for name, labels in entry.objects)


def _read_regions(files: _Masks, photo: Path) -> Regions:
    masks: dict[int | None, np.ndarray] = {}
    ignored = None
    for file, labels in files:
        inside, void = object_pixels(read_mask(file, photo), f"The mask {file}")
        keys: Iterable[int | None] = labels or (None,)
        for key in keys:
            masks[key] = masks[key] | inside if key in masks else inside
        if void is not None:
            ignored = void if ignored is None else ignored | void
    return Regions(masks, ignored)
