"""ImageNet-S: ImageNet validation photos with the pixels of every class (Gao et al., arXiv 2106.03149).

Facts from LUSSeg/ImageNet-S, README.md: a mask is an RGB image whose pixels are class ids R + 256 G; 0 is anything
else and 1000 is to be ignored. Class ids count from 1 in the order of the sorted WordNet ids.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from caap_lab.data.folders import layout_error, list_folder, photo_sample, read_lines
from caap_lab.data.image_set import ImageSet, Regions
from caap_lab.data.imagenet import find_photos
from caap_lab.data.imagenet_labels import photo_number, wordnet_index
from caap_lab.data.masks import read_mask
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "github.com/LUSSeg/ImageNet-S"
MERGED = {
    "n04355933": "n04356056",  # sunglass, sunglasses
    "n02808440": "n04493381",  # bathtub, tub
    "n03832673": "n03642806",  # notebook, laptop
    "n03773504": "n04008634",  # missile, projectile
    "n15075141": "n03887697",  # toilet tissue, paper towel
}
"""ImageNet-S has one class for both, under the first WordNet id."""
_SIZES = (919, 300, 50)
_MASKS = "validation-segmentation"
_IGNORED = 1000


def open_imagenet_s(path: Path, source: str, images: Path | None = None) -> ImageSet:
    """The validation set of ImageNet-S, in the order of the photos' names.

    A photo's label is the ImageNet-1k class of the folder it is in. `Regions.masks` has ImageNet-1k classes too; where
    ImageNet-S merged two classes, both have the same array.

    Args:
        path: ImageNetS919, ImageNetS300 or ImageNetS50, or the folder above, of which the largest is taken.
        source: What the user asked for.
        images: The user's ImageNet validation photos, if `path` has only masks; see `find_photos`.

    Raises:
        InputError: the layout is another, or a photo is missing in `images`.
    """
    root = next((root for root in _roots(path) if list_folder(root / _MASKS).folders), None)
    if root is None:
        raise layout_error(path, f"ImageNetS919/{_MASKS}/n01440764/*.png, or ImageNetS300 or ImageNetS50", HOME)
    folders = list_folder(root / _MASKS).folders
    unknown = [name for name in folders if name not in wordnet_index()]
    if unknown:
        raise InputError(f"{root / _MASKS} has the folder {unknown[0]}, which is no WordNet id of ImageNet-1k.")
    categories = _categories(root, folders)
    class_folders = [root / _MASKS / name for name in folders]
    masks = [folder / name for folder in class_folders for name in list_folder(folder).photos]
    if images is None:
        if not list_folder(root / "validation").folders:
            raise InputError(
                f"{root} has masks but no photos: there is no folder validation. The data set's own script copies "
                "them there from ImageNet; or say where your ImageNet validation photos are with images=."
            )
        photos = {mask: (root / "validation" / mask.parent.name / f"{mask.stem}.JPEG") for mask in masks}
    else:
        photos = _photos_of(masks, images)
    classes = [(wordnet_index()[name], wordnet_index().get(MERGED.get(name, ""))) for name in categories]
    samples = (
        photo_sample(
            mask.stem,
            photos[mask],
            (wordnet_index()[mask.parent.name],),
            partial(_read_regions, mask, photos[mask], classes),
        )
        for mask in sorted(masks, key=lambda mask: mask.stem)
    )
    return ImageSet("imagenet-s", source, tuple(samples), ClassNames.imagenet1k())


def _roots(path: Path) -> list[Path]:
    return [path, *(path / f"ImageNetS{size}" for size in _SIZES)]


def _categories(root: Path, folders: list[str]) -> list[str]:
    """WordNet ids in the order of class ids, from 1 on: the folders' names if all are there, else the list of them."""
    named = re.fullmatch(r"ImageNetS(\d+)", root.name)
    sizes = (int(named[1]),) if named else _SIZES
    if len(folders) in sizes:
        return folders
    for size in sizes:
        for place in (root, root.parent, root.parent / "data" / "categories"):
            file = place / f"ImageNetS_categories_im{size}.txt"
            if file.is_file():
                # The published file was unsorted at first, and class ids are those of the sorted one.
                categories = sorted(read_lines(file))
                strange = sorted({*folders, *categories} - set(wordnet_index())) + sorted({*folders} - {*categories})
                if strange:
                    raise InputError(f"{file} does not fit the folders in {root / _MASKS}: see {strange[0]}.")
                return categories
    raise InputError(
        f"{root / _MASKS} has {len(folders)} of {' or '.join(map(str, sizes))} class folders, so that class ids cannot "
        f"be told from them. Complete it, or put ImageNetS_categories_im{sizes[0]}.txt of {HOME} into {root}."
    )


def _photos_of(masks: list[Path], images: Path) -> dict[Path, Path]:
    by_number = find_photos(images)
    photos = {mask: by_number.get(photo_number(mask.name) or 0) for mask in masks}
    missing = [mask for mask, photo in photos.items() if photo is None]
    if missing:
        raise InputError(
            f"images={images} has no validation photo {missing[0].stem} ({len(missing)} of {len(masks)} are missing)."
        )
    return {mask: photo for mask, photo in photos.items() if photo is not None}


def _read_regions(mask: Path, photo: Path, classes: list[tuple[int, int | None]]) -> Regions:
    pixels = np.asarray(read_mask(mask, photo).convert("RGB")).astype(np.int32)
    if pixels[..., 2].any():
        raise InputError(f"{mask} is no mask of ImageNet-S: class ids are in red and green, and blue is not 0.")
    ids = pixels[..., 0] + 256 * pixels[..., 1]
    masks: dict[int | None, np.ndarray] = {}
    for found in np.unique(ids).tolist():
        if found in (0, _IGNORED):
            continue
        if found > len(classes):
            raise InputError(f"The mask {mask} has class id {found}; there are {len(classes)} classes.")
        own, merged = classes[found - 1]
        masks[own] = ids == found
        if merged is not None:
            masks[merged] = masks[own]
    return Regions(masks, ids == _IGNORED)
