"""ImageNet-S: ImageNet validation photos with the pixels of every class (Gao et al., arXiv 2106.03149).

Facts from LUSSeg/ImageNet-S, README.md: a mask is an RGB image whose pixels are class ids R + 256 G; 0 is anything
else and 1000 is to be ignored. Class ids count from 1 in the order of the sorted WordNet ids. Its archives hold masks;
a script copies ImageNet's photos next to them, many into another class folder than ImageNet's, according to the data
set's lists.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from caap_lab.data.folders import layout_error, list_folder, read_lines
from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.data.masks import read_mask
from caap_lab.data.parquet import ParquetPhoto
from caap_lab.data.val_photos import LOOKED_FOR, ValPhoto, find_photos, photo_name, photo_number, photos_in
from caap_lab.data.wordnet import wordnet_index
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
"""Pairs of classes that ImageNet-S merges under the first WordNet id."""
_SIZES = (919, 300, 50)
_MASKS = "validation-segmentation"
_IGNORED = 1000


def open_imagenet_s(path: Path, source: str, images: Path | None = None) -> ImageSet:
    """The validation set of ImageNet-S, in the order of the photos' names.

    A photo's label is the ImageNet-1k class of the folder that its mask is in: the class whose object the mask marks,
    which for some photos differs from ImageNet's label. Photo and mask are paired only by their names. `Regions .masks`
    has ImageNet-1k classes too; if ImageNet-S merged two classes, both have the same array.

    Args:
        path: ImageNetS919, ImageNetS300 or ImageNetS50, or the folder above, in which the largest is used.
        source: The text that the user gave.
        images: The user's ImageNet validation photos, if `path` has only masks: any folder that "imagenet:" opens, with
            or without labels.

    Raises:
        InputError: the layout is different, a mask has no photo, or there are two photos or masks of the same name.
    """
    root = next((root for root in _roots(path) if list_folder(root / _MASKS).folders), None)
    if root is None:
        raise layout_error(path, f"ImageNetS919/{_MASKS}/n01440764/*.png, or ImageNetS300 or ImageNetS50", HOME)
    folders = list_folder(root / _MASKS).folders
    unknown = [name for name in folders if name not in wordnet_index()]
    if unknown:
        raise InputError(f"{root / _MASKS} has the folder {unknown[0]}, which is not a WordNet id of ImageNet-1k.")
    classes = [
        (wordnet_index()[name], wordnet_index().get(MERGED.get(name, ""))) for name in _categories(root, folders)
    ]
    masks = _find_masks(root / _MASKS, folders)
    photos = _photos_of(masks, root, images)
    samples = []
    for number, mask in sorted(masks.items()):
        read_regions = partial(_read_regions, mask, photos[number].where, classes)
        label = wordnet_index()[mask.parent.name]
        samples.append(Sample(photo_name(number), photos[number].read_image, label, read_regions))
    return ImageSet("imagenet-s", source, tuple(samples), ClassNames.imagenet1k())


def _roots(path: Path) -> list[Path]:
    return [path, *(path / f"ImageNetS{size}" for size in _SIZES)]


def _categories(root: Path, folders: list[str]) -> list[str]:
    """WordNet ids in the order of class ids, from 1: the names of the folders if complete, otherwise from the list."""
    named = re.fullmatch(r"ImageNetS(\d+)", root.name)
    sizes = (int(named[1]),) if named else _SIZES
    if len(folders) in sizes:
        return folders
    for size in sizes:
        for place in (root, root.parent, root.parent / "data" / "categories"):
            file = place / f"ImageNetS_categories_im{size}.txt"
            if file.is_file():
                # The published file was unsorted at first, but class ids refer to the sorted one.
                categories = sorted(read_lines(file))
                strange = sorted({*folders, *categories} - set(wordnet_index())) + sorted({*folders} - {*categories})
                if strange:
                    raise InputError(f"{file} does not fit the folders in {root / _MASKS}: see {strange[0]}.")
                return categories
    raise InputError(
        f"{root / _MASKS} has {len(folders)} of {' or '.join(map(str, sizes))} class folders, so they do not define "
        f"the class ids. Complete it, or put ImageNetS_categories_im{sizes[0]}.txt of {HOME} into {root}."
    )


def _find_masks(folder: Path, classes: list[str]) -> dict[int, Path]:
    """Masks by photo number."""
    masks: dict[int, Path] = {}
    for of_class in [folder / name for name in classes]:
        for name in list_folder(of_class).photos:
            number, mask = photo_number(name), of_class / name
            if number is None:
                raise InputError(f"{mask} is not named after a validation photo, such as ILSVRC2012_val_00000293.png.")
            if masks.setdefault(number, mask) is not mask:
                raise InputError(f"There are two masks of {photo_name(number)}: {masks[number]} and {mask}. Keep one.")
    if not masks:
        raise InputError(f"{folder} has class folders but no masks in them.")
    return masks


def _photos_of(masks: dict[int, Path], root: Path, images: Path | None) -> dict[int, ValPhoto]:
    """The photo of each mask, only by name: class folders of photos and masks need not be the same."""
    way_out = f"say where your ImageNet validation photos are, as in 'imagenet-s:{root}?images=FOLDER'"
    if images is None:
        where = str(root / "validation")
        photos = photos_in(root / "validation")
        if not photos:
            raise InputError(
                f"{root} has masks but no photos: there is no folder validation with photos. The data set's own script "
                f"copies them there from ImageNet; or {way_out}."
            )
    else:
        where = f"images={images}"
        photos = find_photos(images)
        if not photos:
            raise layout_error(images, LOOKED_FOR)
    missing = [number for number in sorted(masks) if number not in photos]
    if missing:
        more = "" if images is not None else f" Complete it, or {way_out}."
        raise InputError(
            f"{where} has no validation photo {photo_name(missing[0])} ({len(missing)} of {len(masks)} are missing)."
            f"{more}"
        )
    return photos


def _read_regions(mask: Path, photo: Path | ParquetPhoto, classes: list[tuple[int, int | None]]) -> Regions:
    pixels = np.asarray(read_mask(mask, photo).convert("RGB")).astype(np.int32)
    if pixels[..., 2].any():
        raise InputError(f"{mask} is not a mask of ImageNet-S: class ids are in red and green, but blue is not 0.")
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
