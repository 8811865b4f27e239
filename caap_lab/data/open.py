"""`open_images("KIND:PATH")` opens any data set."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from caap_lab.data import folder, food101, imagenet, imagenet_hard, imagenet_s, pet
from caap_lab.data.demo_set import open_demo
from caap_lab.data.folders import origin
from caap_lab.data.image_set import ImageSet
from caap_lab.data.scenes import Kind
from caap_lab.errors import InputError


class _Kind(NamedTuple):
    open: Callable[..., ImageSet]
    home: str = ""
    options: tuple[str, ...] = ()


KINDS = {
    "imagenet": _Kind(imagenet.open_imagenet, imagenet.HOME, ("labels",)),
    "imagenet-s": _Kind(imagenet_s.open_imagenet_s, imagenet_s.HOME, ("images",)),
    "imagenet-hard": _Kind(imagenet_hard.open_imagenet_hard, imagenet_hard.HOME),
    "pet": _Kind(pet.open_pet, pet.HOME, ("labels",)),
    "food101": _Kind(food101.open_food101, food101.HOME, ("labels",)),
    "folder": _Kind(folder.open_folder, options=("labels",)),
    "masks": _Kind(folder.open_masks, options=("labels",)),
}
"""Kinds of data sets, besides "demo"."""


def open_images(spec: str, *, labels: str | Path | None = None, images: str | Path | None = None) -> ImageSet:
    """A data set on this computer; nothing is downloaded, and no image is read yet.

    ```python
    images = cl.open_images("imagenet-s:~/data/ImageNetS919").sample(128, seed=0)
    for sample in images:
        sample.image, sample.label, sample.regions.masks[sample.label]
    ```

    Args:
        spec: The kind of data set, a colon and its folder: "imagenet:PATH", "imagenet-s:PATH",
            "imagenet-hard:PATH", "pet:PATH", "food101:PATH", "folder:PATH" (any photos), "masks:PATH" (any photos with
            masks), or "demo:single" and the other kinds of `demo_images`. The page "Data" of the documentation shows
            their layouts. An `ImageSet.source` opens its data set again, with its labels.
        labels: A file of labels instead of the layout's own: any form of ImageNet's, labels.json for "folder" and
            "masks", or the list of another split for "pet" and "food101".
        images: For "imagenet-s": ImageNet validation photos, if only its masks are in PATH; any folder that "imagenet"
            opens. Within `spec`, also on the command line: "imagenet-s:PATH?images=PATH".

    Raises:
        InputError: there is no such kind or folder, its layout is different, or the kind has no such option.
    """
    kind, colon, place = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if not colon or not place or kind not in (*KINDS, "demo"):
        raise InputError(
            f"{spec!r} is not a data set. Write the kind, a colon and the folder, as in {_example(spec)!r}; the kinds "
            f"are: {', '.join(KINDS)}, and demo, as in 'demo:single'."
        )
    known, options = KINDS.get(kind), {"labels": labels, "images": images}
    given = {name: Path(value) for name, value in options.items() if value is not None}
    for name in given:
        if known is None or name not in known.options:
            raise _no_option(name, kind, known.options if known else ())
    if known is None:
        return open_demo(cast(Kind, place), spec)
    try:
        return _open(spec, kind, known, place, given)
    except (OSError, RuntimeError) as error:  # a path that is too long or not accessible, or ~ of an unknown user
        raise InputError(f"{spec[:200]!r} cannot be opened ({str(error)[:200]}).") from None


def _example(spec: object) -> str:
    """The data set of the folder or the photo that was given without its kind; "folder:photos" if there is none."""
    if isinstance(spec, str | Path) and 0 < len(str(spec)) < 200:
        path = Path(spec)
        if path.is_dir():
            return f"folder:{path}"
        if path.is_file():
            return f"folder:{path.parent}"
    return "folder:photos"


def _open(spec: str, kind: str, known: _Kind, place: str, given: dict[str, Path]) -> ImageSet:
    folder, told = _split(place, known.options)
    if given and told:
        raise InputError(f"{spec!r} already contains {', '.join(told)}; {', '.join(given)}= was given as well.")
    found = {name: _there(name, path) for name, path in (given or told).items()}
    path = Path(folder).expanduser()
    if not path.is_dir():
        option = re.search(r"\?(\w+)=", folder)
        if option and option[1] not in known.options:  # it would be taken for a part of the folder's name
            raise _no_option(option[1], kind, known.options)
        raise InputError(f"There is no folder {path}.{origin(known.home)}")
    path = path.resolve()
    source = f"{kind}:{path}" + "".join(f"?{name}={file}" for name, file in found.items())
    return known.open(path, source, **found)


def _no_option(name: str, kind: str, options: tuple[str, ...]) -> InputError:
    takes = " or ".join(f"{option}=" for option in options) or "no option"
    return InputError(f"{name}= is not an option of {kind!r}, which takes {takes}.")


def _there(name: str, path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"{name}={path} does not exist.")
    if not path.is_dir() and not path.is_file():  # reading a pipe would wait forever
        raise InputError(f"{name}={path} is a pipe or a device.")
    return path.resolve()


def _split(place: str, options: tuple[str, ...]) -> tuple[str, dict[str, Path]]:
    """Folder and options from "FOLDER?labels=FILE"; question marks may also be in the names of both.

    Raises:
        InputError: the text is ambiguous, because both readings exist on this computer.
    """
    ways: list[tuple[str, dict[str, Path]]] = [(place, {})]
    for name in options:
        for mark in re.finditer(re.escape(f"?{name}="), place):
            if not place[mark.end() :].strip():
                raise InputError(f"{place!r} has no path after {name}=.")
            ways.append((place[: mark.start()], {name: Path(place[mark.end() :])}))
    real = [
        (folder, told)
        for folder, told in ways
        if Path(folder).expanduser().is_dir() and all(path.expanduser().exists() for path in told.values())
    ]
    if len(real) > 1:
        raise InputError(f"{place!r} is ambiguous: {len(real)} readings exist. Rename the folder with '?' in its name.")
    return real[0] if real else ways[-1]
