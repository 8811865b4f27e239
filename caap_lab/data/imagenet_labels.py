"""Labels of the ImageNet validation photos, in all common forms.

A photo is named by its number, 1 to 50,000: ILSVRC2012_val_00000001.JPEG. Class indices are those of `ClassNames
.imagenet1k()`, the order of the sorted WordNet ids, as in all torchvision and timm models.
"""

import csv
from collections.abc import Collection
from pathlib import Path

from caap_lab.data.folders import read_lines
from caap_lab.data.labels_file import read_labels_file
from caap_lab.data.val_photos import photo_name, photo_number
from caap_lab.data.wordnet import wordnet_index
from caap_lab.errors import InputError

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = (
    "LOC_val_solution.csv",
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    GROUND_TRUTH,
    "labels.json",
)
"""Label files that are recognised by name."""
_DEVKITS = ("", "data", "ILSVRC2012_devkit_t12/data")
_KAGGLE = ("Data", "CLS-LOC", "val")
_COUNT = 50_000


def find_label_file(path: Path, photos: Path) -> Path | None:
    """The file of labels next to or above the photos; None if there is none.

    Args:
        path: The path that the user gave.
        photos: Folder of the photos: this one or one below it.
    """
    folders = [photos, *photos.parents[: len(photos.relative_to(path).parts)], path, path.parent]
    if photos.parts[-3:] == _KAGGLE:  # the labels lie outside of ILSVRC/Data/CLS-LOC/val, or in ILSVRC
        folders += photos.parents[1:4]
    for name in LABEL_FILES:
        for folder in dict.fromkeys(folders):
            for devkit in _DEVKITS:
                file = folder / devkit / name
                if file.is_file():
                    return file
    return None


def read_imagenet_labels(file: Path, photos: Collection[int]) -> dict[int, int]:
    """Class indices by photo number.

    Args:
        file: One of these, recognised by its content:

            - Kaggle's LOC_val_solution.csv: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`;
            - Caffe's val.txt: `ILSVRC2012_val_00000001.JPEG 65`, or a WordNet id instead of the class index;
            - one WordNet id per line, for each photo in the order of their numbers;
            - the devkit's ground truth, one number per line: these are ILSVRC2012_IDs 1 to 1000, which are in another
              order than class indices; the devkit's meta.mat in the same folder maps them;
            - labels.json; see `read_labels_file`.
        photos: Numbers of the existing photos. A file without photo names has one line for each of the 50,000 photos,
            or for each of these if they are all from 1.

    Raises:
        InputError: the file has none of these forms, has too few or too many lines, has two classes or an unknown one
            for a photo, or meta.mat is missing.
    """
    if file.suffix == ".json":
        entries = {photo_number(name): entry.labels for name, entry in read_labels_file(file).items()}
        found = {number: labels[0] for number, labels in entries.items() if number is not None and labels}
        return {number: _class(file, str(label)) for number, label in found.items()}
    lines = read_lines(file)
    if not lines:
        raise InputError(f"{file} lists no labels.")
    if file.suffix == ".csv":
        header = photo_number(lines[0]) is None
        return _from_rows(file, [row[:2] for row in csv.reader(lines[header:])])
    if len(lines[0].split()) == 1:
        _check_count(file, len(lines), photos)
        classes = _devkit_classes(file, lines) if lines[0].isdecimal() else lines
        return {number: _class(file, text) for number, text in enumerate(classes, start=1)}
    return _from_rows(file, [line.split() for line in lines])


def _check_count(file: Path, lines: int, photos: Collection[int]) -> None:
    """Raise InputError for an ordered list of the wrong length, in which entries would be shifted."""
    if lines == _COUNT or set(photos) == set(range(1, lines + 1)):
        return
    raise InputError(
        f"{file} has {lines:,} lines without photo names, but needs one for each of the {_COUNT:,} validation photos "
        f"({len(photos):,} photos were found, up to number {max(photos):,}). Download the file again."
    )


def _from_rows(file: Path, rows: list[list[str]]) -> dict[int, int]:
    """Labels from lines that name their photos."""
    if len(rows) > 1 and all(len(row) == 2 and row[0] == f"ILSVRC2012_val_{row[1]:0>8}" for row in rows):
        raise InputError(
            f"{file} only numbers the photos, like Kaggle's ImageSets/CLS-LOC/val.txt, and has no classes. These are "
            "in LOC_val_solution.csv."
        )
    labels: dict[int, int] = {}
    for row in rows:
        number = photo_number(row[0]) if row else None
        if number is None or len(row) < 2 or not row[1].split():
            raise InputError(f"{file} has the line {' '.join(row)!r}, not a validation photo and its class.")
        label = _class(file, row[1].split()[0])
        if labels.setdefault(number, label) != label:
            raise InputError(f"{file} has two classes for {photo_name(number)}: {labels[number]} and {label}.")
    return labels


def _class(file: Path, text: str) -> int:
    if text in wordnet_index():
        return wordnet_index()[text]
    if text.isdecimal() and int(text) < len(wordnet_index()):
        return int(text)
    raise InputError(f"{file} has {text!r} where a WordNet id of ImageNet-1k or a class index 0 to 999 should be.")


def _devkit_classes(file: Path, lines: list[str]) -> list[str]:
    """WordNet ids of a ground truth file."""
    strange = [line for line in lines if not line.isdecimal() or not 1 <= int(line) <= len(wordnet_index())]
    if strange:
        raise InputError(f"{file} has {strange[0]!r} where an ILSVRC2012_ID, 1 to 1000, should be.")
    meta = file.with_name("meta.mat")
    if not meta.is_file():
        raise InputError(
            f"{file} numbers the classes by ILSVRC2012_ID, but the devkit's meta.mat, which explains these, is not "
            f"next to it. Both are in ILSVRC2012_devkit_t12.tar.gz, in the folder data."
        )
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        names = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
        return [names[int(line)] for line in lines]
    except Exception as error:  # SciPy may raise anything for a damaged file
        raise InputError(f"{meta} does not explain {file} ({type(error).__name__}: {error}).") from error
