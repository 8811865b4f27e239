"""ImageNet-1k validation photos: a flat folder with a file of labels, or a folder a class."""

from pathlib import Path

from caap_lab.data.folders import layout_error, list_folder, photo_sample
from caap_lab.data.image_set import ImageSet
from caap_lab.data.imagenet_labels import (
    GROUND_TRUTH,
    LABEL_FILES,
    photo_name,
    photo_number,
    read_imagenet_labels,
    wordnet_index,
)
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "image-net.org (ILSVRC2012), or Kaggle's ImageNet Object Localization Challenge"
_PLACES = ("", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val")
_DEVKITS = ("", "data", "ILSVRC2012_devkit_t12/data")


def open_imagenet(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """The ImageNet-1k validation set or a part of it, in the order of the photos' numbers.

    Args:
        path: Folder of the photos, or a folder above: Kaggle's, or one with "val" in it.
        source: What the user asked for.
        labels: A file for `read_imagenet_labels`, instead of the class folders or the file beside the photos.

    Raises:
        InputError: there are no validation photos, or a photo has no label.
    """
    photos = find_photos(path)
    if not photos:
        raise layout_error(path, "photos ILSVRC2012_val_00000001.JPEG, flat or in folders such as n01440764", HOME)
    if labels is None and all(photo.parent.name in wordnet_index() for photo in photos.values()):
        classes = {number: wordnet_index()[photo.parent.name] for number, photo in photos.items()}
    else:
        labels = labels or _label_file(path, next(iter(photos.values())).parent)
        classes = read_imagenet_labels(labels)
    missing = [number for number in photos if number not in classes]
    if missing:
        raise InputError(
            f"{labels} has no label for {photo_name(missing[0])} ({len(missing)} of {len(photos)} photos have none)."
        )
    samples = (photo_sample(photo_name(number), photos[number], (classes[number],)) for number in sorted(photos))
    return ImageSet("imagenet", source, tuple(samples), ClassNames.imagenet1k())


def find_photos(path: Path) -> dict[int, Path]:
    """Validation photos by their numbers, from a flat folder or class folders, here or where archives put them."""
    for place in _PLACES:
        folder = path / place
        inside = list_folder(folder)
        found = [folder / name for name in inside.photos]
        for name in inside.folders:
            if name in wordnet_index():
                of_class = folder / name
                found += [of_class / photo for photo in list_folder(of_class).photos]
        photos = {number: photo for photo in found if (number := photo_number(photo.name)) is not None}
        if photos:
            return photos
    return {}


def _label_file(path: Path, photos: Path) -> Path:
    folders = dict.fromkeys([photos, path, path.parent])
    for name in LABEL_FILES:
        for folder in folders:
            for devkit in _DEVKITS:
                file = folder / devkit / name
                if file.is_file():
                    return file
    raise InputError(
        f"The photos in {photos} are not sorted into class folders, and there is no file of labels beside them or in "
        f"{path}. Looked for: {', '.join(LABEL_FILES)}, and ILSVRC2012_devkit_t12/data/{GROUND_TRUTH}. Give another "
        "with labels=."
    )
