"""The user's choices for figures that show single images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.names import nearest


@dataclass(frozen=True)
class FigureOptions:
    """Choices for figures 1, 2, 3 and 11 to 40."""

    photos: tuple[str, ...] = ()
    """Names of images, see `photo_names`; by default each figure uses the first ones of its table."""
    target: str | None = None
    """"label", "prediction", or a class by index, WordNet id or name; None for the default of each figure."""


def photo_names(images: ImageSet, photos: Iterable[str]) -> dict[str, str]:
    """A data set's names of photos that a user named by full name, or by the file name with or without its extension.

    If a data set's names have no extension, as in ImageNet, the name or path of the file is also valid. Photos that the
    data set does not contain are omitted; see `check_photos`.

    Raises:
        InputError: a name matches several photos.
    """
    names: dict[str, dict[str, None]] = {}
    for sample in images:
        path = PurePosixPath(sample.name)
        for text in (path.name, path.stem):
            names.setdefault(text, {})[sample.name] = None
    names |= {sample.name: {sample.name: None} for sample in images}
    found = {}
    for photo in photos:
        bare = PurePosixPath(photo).stem
        fits = list(names.get(photo) or (name for name in names.get(bare, ()) if not PurePosixPath(name).suffix))
        if len(fits) > 1:
            more = ", ..." if len(fits) > 3 else ""
            raise InputError(f"--photos {photo} can be any of {len(fits)} images: {', '.join(fits[:3])}{more}.")
        if fits:
            found[photo] = fits[0]
    return found


def check_photos(sets: Sequence[ImageSet], photos: Sequence[str]) -> None:
    """Raise InputError for photos that are in none of the data sets.

    Raises:
        InputError: the message names all of them, with the nearest names of the first.
    """
    known = {photo for images in sets for photo in photo_names(images, photos)}
    missing = [photo for photo in photos if photo not in known]
    if missing:
        where = " or ".join(dict.fromkeys(images.source for images in sets)) or "these figures"
        near = nearest(missing[0], [sample.name for images in sets for sample in images])
        raise InputError(f"--photos: there is no {', '.join(missing)} in {where}.{near}")
