"""ImageNet-1k validation photos with labels from class folders, a file, their names or parquet rows."""

from pathlib import Path

from caap_lab.data.folders import layout_error
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.data.imagenet_labels import GROUND_TRUTH, LABEL_FILES, find_label_file, read_imagenet_labels
from caap_lab.data.val_photos import LOOKED_FOR, ValPhoto, find_photos, photo_name
from caap_lab.data.wordnet import wordnet_index
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "image-net.org (ILSVRC2012), Kaggle, or huggingface.co/datasets/ILSVRC/imagenet-1k"


def open_imagenet(path: Path, source: str, labels: Path | None = None) -> ImageSet:
    """The ImageNet-1k validation set or a part of it, in the order of the photo numbers.

    Args:
        path: Folder of the photos or parquet files, or a folder above it: Kaggle's, or one with "val" or "data" in it.
        source: The text that the user gave.
        labels: A file for `read_imagenet_labels`, instead of class folders, parquet labels or a label file near the
            photos.

    Raises:
        InputError: there are no validation photos, a photo has no label or a name with another class than its label, or
            there is only one class folder.
    """
    photos = find_photos(path)
    if not photos:
        raise layout_error(path, LOOKED_FOR, HOME)
    _check_more_than_one_folder(path, photos)
    classes = _classes(path, photos, labels)
    samples = (Sample(photo_name(number), photos[number].read_image, classes[number]) for number in sorted(photos))
    return ImageSet("imagenet", source, tuple(samples), ClassNames.imagenet1k())


def _classes(path: Path, photos: dict[int, ValPhoto], labels: Path | None) -> dict[int, int]:
    """The class of each photo: from the given file, its class folder or row, a nearby file or its name."""
    is_sorted = {number: photo.sorted for number, photo in photos.items() if photo.sorted is not None}
    if labels is None and len(is_sorted) == len(photos):
        return _agreeing("its folder or row", is_sorted, photos)
    folder = next(iter(photos.values())).folder
    file = labels or find_label_file(path, folder)
    if file is not None:
        return _agreeing(str(file), read_imagenet_labels(file, photos), photos)
    named = {number: photo.named for number, photo in photos.items() if photo.named is not None}
    if len(named) == len(photos):
        return named
    raise InputError(
        f"The photos in {folder} are not sorted into class folders, and there is no file of labels next to or above "
        f"them. Looked for: {', '.join(LABEL_FILES)}, and ILSVRC2012_devkit_t12/data/{GROUND_TRUTH}. Give another with "
        f"labels=, as in 'imagenet:{path}?labels=FILE'."
    )


def _agreeing(said_by: str, classes: dict[int, int], photos: dict[int, ValPhoto]) -> dict[int, int]:
    """The classes, after a check that all photos have one and that no name contains another.

    Raises:
        InputError: the message says how many have none, or which name disagrees.
    """
    missing = [number for number in sorted(photos) if number not in classes]
    if missing:
        raise InputError(
            f"{said_by} has no label for {photo_name(missing[0])} ({len(missing)} of {len(photos)} photos have none)."
        )
    ids = list(wordnet_index())
    wrong = [number for number in sorted(photos) if photos[number].named not in (None, classes[number])]
    if wrong:
        first = photos[wrong[0]]
        raise InputError(
            f"The name of {first.where} says {ids[first.named or 0]}, but {said_by} says {ids[classes[wrong[0]]]} "
            f"({len(wrong)} of {len(photos)} photos disagree). Give correct labels=, or correct the names."
        )
    return classes


def _check_more_than_one_folder(path: Path, photos: dict[int, ValPhoto]) -> None:
    """Raise InputError for a single class folder, which would silently be taken for the complete set."""
    folders = {photo.folder for photo in photos.values()}
    if len(folders) > 1:
        return
    (folder,) = folders
    if folder.name not in wordnet_index():
        return
    way_out = f"Give {folder.parent}, with all class folders."
    if folder != path:
        way_out = f"Complete it; for photos of only one class, write 'folder:{folder.parent}'."
    raise InputError(f"{folder} is only one of the 1000 class folders of the validation set. {way_out}")
