"""Labels of the ImageNet validation photos, in the forms in which they are passed around.

A photo is named by its number, 1 to 50,000: ILSVRC2012_val_00000001.JPEG. Class indices are those of `ClassNames
.imagenet1k()`, the order of the sorted WordNet ids, as all torchvision and timm models have it.
"""

import csv
import re
from functools import cache
from pathlib import Path

from caap_lab.data.folders import read_lines
from caap_lab.data.labels_file import read_labels_file
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = (
    "LOC_val_solution.csv",
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    GROUND_TRUTH,
    "labels.json",
)
"""Files that are recognised by name beside the photos."""
_PHOTO = re.compile(r"ILSVRC2012_val_(\d{8})")


def photo_number(name: str) -> int | None:
    """Number in a validation photo's file name or path; None if it is no such name."""
    found = _PHOTO.search(name)
    return int(found[1]) if found else None


def photo_name(number: int) -> str:
    """Name of a validation photo, without a suffix."""
    return f"ILSVRC2012_val_{number:08d}"


@cache
def wordnet_index() -> dict[str, int]:
    """WordNet id to class index of the 1000 classes."""
    return {wordnet_id: index for index, wordnet_id in enumerate(ClassNames.imagenet1k().ids)}


def read_imagenet_labels(file: Path) -> dict[int, int]:
    """Number of a photo to its class index.

    Args:
        file: One of these, told apart by what is in it:

            - Kaggle's LOC_val_solution.csv: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`;
            - Caffe's val.txt: `ILSVRC2012_val_00000001.JPEG 65`, or a WordNet id instead of the class index;
            - a WordNet id a line, one a photo in the order of their numbers;
            - the devkit's ground truth, a number a line: these are ILSVRC2012_IDs 1 to 1000, which are in another
              order than class indices; the devkit's meta.mat, in the same folder, says which is which;
            - labels.json; see `read_labels_file`.

    Raises:
        InputError: the file has none of these forms, or meta.mat is missing.
    """
    if file.suffix == ".json":
        entries = {photo_number(name): entry.labels for name, entry in read_labels_file(file).items()}
        return {number: labels[0] for number, labels in entries.items() if number is not None and labels}
    lines = read_lines(file)
    if not lines:
        raise InputError(f"{file} lists no labels.")
    if file.suffix == ".csv":
        rows = [row[:2] for row in csv.reader(lines[1:])]
    elif len(lines[0].split()) == 1:
        classes = _devkit_classes(file, lines) if lines[0].isdecimal() else lines
        return {number: _class(file, text) for number, text in enumerate(classes, start=1)}
    else:
        rows = [line.split() for line in lines]
    labels: dict[int, int] = {}
    for row in rows:
        number = photo_number(row[0])
        if number is None or len(row) < 2 or not row[1].split():
            raise InputError(f"{file} has the line {' '.join(row)!r}, not a validation photo and its class.")
        labels[number] = _class(file, row[1].split()[0])
    return labels


def _class(file: Path, text: str) -> int:
    if text in wordnet_index():
        return wordnet_index()[text]
    if text.isdecimal() and int(text) < 1000:
        return int(text)
    raise InputError(f"{file} has {text!r} where a WordNet id of ImageNet-1k or a class index 0 to 999 should be.")


def _devkit_classes(file: Path, lines: list[str]) -> list[str]:
    """WordNet ids of a ground truth file."""
    meta = file.with_name("meta.mat")
    if not meta.is_file():
        raise InputError(
            f"{file} numbers the classes by ILSVRC2012_ID, and the devkit's meta.mat, which says what these are, is "
            f"not beside it. Both are in ILSVRC2012_devkit_t12.tar.gz, in the folder data."
        )
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        names = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
        return [names[int(line)] for line in lines]
    except Exception as error:  # SciPy raises whatever a damaged file leads to
        raise InputError(f"{meta} does not explain {file} ({type(error).__name__}: {error}).") from error
