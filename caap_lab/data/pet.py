"""Oxford-IIIT Pet: 37 breeds of cats and dogs with trimaps (Parkhi et al. 2012)."""

from functools import partial
from pathlib import Path

import numpy as np

from caap_lab.data.folders import check_listed, layout_error, photo_sample, read_lines
from caap_lab.data.image_set import ImageSet, Regions
from caap_lab.data.masks import read_mask
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "robots.ox.ac.uk/~vgg/data/pets"
_BREEDS = 37
_PET, _BACKGROUND, _BORDER = 1, 2, 3


def open_pet(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """The set of the test photos of Oxford-IIIT Pet, in the order of annotations/test.txt.

    Labels are the published class ids minus 1. In a mask, the border between pet and background is ignored.

    Args:
        path: Folder with images and annotations, or with oxford-iiit-pet in it.
        source: The text that the user gave.
        labels: Another list, such as annotations/trainval.txt.

    Raises:
        InputError: the layout is different, or photos or trimaps of the list are missing.
    """
    root = path / "oxford-iiit-pet" if (path / "oxford-iiit-pet").is_dir() else path
    file = labels or root / "annotations" / "test.txt"
    if not (root / "images").is_dir() or not (root / "annotations" / "trimaps").is_dir() or not file.is_file():
        raise layout_error(root, "images/*.jpg, annotations/test.txt and annotations/trimaps/*.png", HOME)
    rows = _read_list(file)
    stems = [stem for stem, _ in rows]
    check_listed(file, root / "images", [f"{stem}.jpg" for stem in stems])
    check_listed(file, root / "annotations" / "trimaps", [f"{stem}.png" for stem in stems])
    full_list = root / "annotations" / "list.txt"
    names = {index: _breed(stem) for stem, index in (_read_list(full_list) if full_list.is_file() else rows)}
    names.update((index, _breed(stem)) for stem, index in rows)
    samples = []
    for stem, index in rows:
        photo = root / "images" / f"{stem}.jpg"
        trimap = root / "annotations" / "trimaps" / f"{stem}.png"
        samples.append(photo_sample(stem, photo, (index,), partial(_read_regions, trimap, photo, index)))
    classes = ClassNames(tuple(names.get(index, f"class {index}") for index in range(max(names) + 1)))
    return ImageSet("pet", source, tuple(samples), classes)


def _read_list(file: Path) -> list[tuple[str, int]]:
    """Photos without suffix and their classes from 0, from lines such as "Abyssinian_1 1 1 1"."""
    rows = []
    for line in read_lines(file):
        if line.startswith("#"):
            continue
        stem, *numbers = line.split()
        if len(numbers) != 3 or not numbers[0].isdecimal():
            raise InputError(f"{file} has the line {line!r}, where one like 'Abyssinian_1 1 1 1' should be.")
        if not 1 <= int(numbers[0]) <= _BREEDS:
            raise InputError(f"{file} has the line {line!r}, and class ids are 1 to {_BREEDS}.")
        rows.append((stem, int(numbers[0]) - 1))
    if not rows:
        raise InputError(f"{file} lists no photos.")
    return rows


def _breed(stem: str) -> str:
    return stem.rpartition("_")[0].replace("_", " ")


def _read_regions(trimap: Path, photo: Path, label: int) -> Regions:
    values = np.asarray(read_mask(trimap, photo))
    if values.ndim != 2 or not np.isin(values, (_PET, _BACKGROUND, _BORDER)).all():
        raise InputError(f"{trimap} is not a trimap: its values are not 1 (pet), 2 (background) and 3 (border).")
    return Regions({label: values == _PET}, values == _BORDER)
