"""labels.json: labels, and the classes of masks, for the user's own photos.

Labels are indices of ImageNet-1k's classes, or of those in a file classes.txt next to it, one name per line.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from caap_lab.data.folders import read_lines
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames


class Entry(NamedTuple):
    """The entry of one photo in labels.json."""

    labels: tuple[int, ...] = ()
    """Its correct classes; the first is its label."""
    objects: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Mask file and correct classes, one pair per object."""


def read_labels_file(file: Path) -> dict[str, Entry]:
    """Entries by photo, with or without its suffix.

    Args:
        file: A JSON object. Each key is a photo; each value is a class index, or an object with any of

            - `label`: a class index;
            - `accept_ids`: several class indices, all correct; the first is the label if there is no `label`;
            - `objects`: a list of such objects, each with `mask`, a file in the folder of masks.

            Anything else is ignored.

    Raises:
        InputError: the file is missing, not JSON, or of another form.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}).") from None
    if not isinstance(content, dict):
        raise InputError(f'{file} should be like {{"photo.jpg": 281}}: photos with their class indices.')
    return {name: _entry(value, f"{file}, {name}") for name, value in content.items()}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file, of whose equal keys Python would only read the last one."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands in it twice")
        found[key] = value
    return found


def class_names(file: Path, entries: Iterable[Entry]) -> ClassNames | None:
    """Names of the classes to which a labels file refers; None if it has no labels.

    Raises:
        InputError: a label is larger than the number of classes.
    """
    labels = [label for entry in entries for found in (entry.labels, *(o[1] for o in entry.objects)) for label in found]
    if not labels:
        return None
    own = file.with_name("classes.txt")
    names = ClassNames(tuple(read_lines(own))) if own.is_file() else ClassNames.imagenet1k()
    if max(labels) >= len(names):
        which = own if own.is_file() else "ImageNet-1k, or a file classes.txt next to it,"
        raise InputError(f"{file} has class {max(labels)}, but {which} has classes 0 to {len(names) - 1}.")
    return names


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, dict):
        return Entry(_labels({"label": value}, where))
    objects = value.get("objects", [])
    known = isinstance(objects, list) and all(isinstance(item, dict) for item in objects)
    if not known or not all(isinstance(item.get("mask"), str) for item in objects):
        raise InputError(f'{where}: "objects" should be a list like [{{"mask": "photo__cat.png", "label": 281}}].')
    pairs = tuple((item["mask"], _labels(item, where)) for item in objects)
    return Entry(_labels(value, where) or (pairs[0][1] if pairs else ()), pairs)


def _labels(value: dict[str, Any], where: str) -> tuple[int, ...]:
    label, accepted = value.get("label"), value.get("accept_ids", [])
    labels = [*([] if label is None else [label]), *(accepted if isinstance(accepted, list) else [accepted])]
    if not all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in labels):
        raise InputError(f"{where}: {labels} are not class indices, whole numbers of at least 0.")
    return tuple(dict.fromkeys(labels))
