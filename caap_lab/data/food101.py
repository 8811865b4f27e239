"""Food-101: dishes in 101 classes (Bossard et al. 2014)."""

from collections import Counter
from pathlib import Path

from caap_lab.data.folders import check_listed, layout_error, photo_sample, read_lines
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "data.vision.ee.ethz.ch/cvl/datasets_extra/food-101"


def open_food101(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """The set of the test photos of Food-101, in the order of meta/test.txt.

    Args:
        path: Folder with images and meta, or with food-101 in it.
        source: The text that the user gave.
        labels: Another list, such as meta/train.txt.

    Raises:
        InputError: the layout is different, or photos of the list are missing.
    """
    root = path / "food-101" if (path / "food-101").is_dir() else path
    file = labels or root / "meta" / "test.txt"
    if not (root / "images").is_dir() or not (root / "meta" / "classes.txt").is_file() or not file.is_file():
        raise layout_error(root, "images/apple_pie/*.jpg, meta/classes.txt and meta/test.txt", HOME)
    classes = read_lines(root / "meta" / "classes.txt")
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise InputError(f"{root / 'meta' / 'classes.txt'} has the class {twice[0]!r} twice. Download the file again.")
    spoken = root / "meta" / "labels.txt"
    names = read_lines(spoken) if spoken.is_file() else [name.replace("_", " ") for name in classes]
    if len(names) != len(classes):
        raise InputError(f"{spoken} has {len(names)} names for the {len(classes)} classes in meta/classes.txt.")
    index = {name: position for position, name in enumerate(classes)}
    lines = read_lines(file)
    if not lines:
        raise InputError(f"{file} lists no photos.")
    samples = []
    for line in lines:
        folder = line.partition("/")[0]
        if folder not in index:
            raise InputError(f"{file} has the line {line!r}, whose class is not in meta/classes.txt.")
        samples.append(photo_sample(line, root / "images" / f"{line}.jpg", (index[folder],)))
    check_listed(file, root / "images", [f"{line}.jpg" for line in lines])
    return ImageSet("food101", source, tuple(samples), ClassNames(tuple(names)))
