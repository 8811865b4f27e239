"""From the classes of a data set to the classes of a model: by name if both have names.

The same index means the same class only by chance: folders are sorted by name, but a model's head is not.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.classes import ClassNames
from caap_lab.models.names import nearest


def label_of(sample: Sample, images: ImageSet, model: HookedModel) -> int:
    """The index of the image's class in the model.

    Raises:
        InputError: there is no label, or its class in the model is ambiguous.
    """
    if sample.label is None or images.class_names is None:
        raise InputError(f"{sample.name} has no label; use target='prediction'.")
    names, own = images.class_names, model.class_names
    pairs = _pairs(names, own)
    if not pairs:
        raise InputError(
            f"{images.source} counts {len(names)} classes and {model.model_name} has {len(own)}, but their names do "
            f"not show which is which. {_WAY_OUT}"
        )
    if not 0 <= sample.label < len(names):
        raise InputError(f"{sample.name} has the label {sample.label}, but {images.source} has {len(names)} classes.")
    fits, name = pairs[sample.label], names.names[sample.label]
    if len(fits) == 1:
        sharing = [names.names[index] for index, others in enumerate(pairs) if others == fits]
        if len(sharing) == 1:
            return fits[0]
        raise InputError(
            f"{images.source} has {len(sharing)} classes, {_list(sharing)}, that are all class {fits[0]} "
            f"({own.names[fits[0]]}) of {model.model_name}. {_WAY_OUT}"
        )
    if fits:
        several = _list([f"{index} ({own.names[index]})" for index in fits])
        raise InputError(
            f"Class {name!r} of {images.source} can be any of the classes {several} of {model.model_name}. {_WAY_OUT}"
        )
    raise InputError(
        f"{images.source} has the class {name!r}, which {model.model_name} does not have.{nearest(name, own.names)} "
        f"{_WAY_OUT}"
    )


def with_model_classes(sample: Sample, images: ImageSet, model: HookedModel) -> Sample:
    """The sample with its masks by the model's classes; objects of other classes are under None."""
    if sample.read_regions is None:
        return sample
    pairs = _pairs(images.class_names, model.class_names) if images.class_names is not None else ()
    return replace(sample, read_regions=partial(_read_regions, sample.read_regions, pairs))


def count_pairs(data: ClassNames, model: ClassNames) -> int:
    """Number of the data's classes that match exactly one of the model's."""
    return sum(len(fits) == 1 for fits in _pairs(data, model))


_WAY_OUT = (
    "Give both the same names (class_names= of the model; folders or classes.txt of the images), or use "
    "target='prediction'."
)
_NUMBER = re.compile(r"(?:class[ _-]?)?(\d+)", re.IGNORECASE)


def _read_regions(read: Callable[[], Regions], pairs: tuple[tuple[int, ...], ...]) -> Regions:
    regions = read()
    masks: dict[int | None, np.ndarray] = {}
    for label, mask in regions.masks.items():
        fits = pairs[label] if label is not None and label < len(pairs) else ()
        key = fits[0] if len(fits) == 1 else None
        masks[key] = masks[key] | mask if key in masks else mask
    return Regions(masks, regions.ignored)


@lru_cache(maxsize=16)
def _pairs(data: ClassNames, model: ClassNames) -> tuple[tuple[int, ...], ...]:
    """The model's classes that each class of the data may be; empty if they are numbered differently."""
    count = len(data)
    if data.names == model.names and (data.ids == model.ids or not data.ids or not model.ids):
        return tuple((index,) for index in range(count))
    numbers = [_NUMBER.fullmatch(name) for name in data.names]
    if all(numbers) and not set(data.names) & set(model.names):
        indices = [int(number[1]) for number in numbers if number]
        return tuple((index,) for index in indices) if max(indices) < len(model) and _fits(data, indices, model) else ()
    if _is_numbered(model):
        return tuple((index,) for index in range(count)) if count == len(model) else ()
    return _by_name(data, model)


def _fits(data: ClassNames, indices: list[int], model: ClassNames) -> bool:
    """True if names that are numbers match the model's: all different, and complete unless somebody chose them."""
    return len(set(indices)) == len(indices) and (not _is_numbered(data) or len(data) == len(model))


def _is_numbered(names: ClassNames) -> bool:
    return names.names == ClassNames.numbered(len(names)).names


def _by_name(data: ClassNames, model: ClassNames) -> tuple[tuple[int, ...], ...]:
    """By WordNet id, otherwise by the full name, otherwise by a synonym that both have."""
    ids = {wordnet_id: index for index, wordnet_id in enumerate(model.ids)}
    if data.ids and model.ids:
        return tuple((ids[wordnet_id],) if wordnet_id in ids else () for wordnet_id in data.ids)
    whole, parts = _index(model, lambda name: [name]), _index(model, lambda name: name.split(","))
    pairs: list[tuple[int, ...]] = []
    for name, wordnet_id in zip(data.names, data.ids or data.names, strict=True):
        if wordnet_id in ids:
            pairs.append((ids[wordnet_id],))
            continue
        synonyms = {index for part in name.split(",") for index in parts.get(_plain(part), ())}
        pairs.append(whole.get(_plain(name)) or tuple(sorted(synonyms)))
    return tuple(pairs)


def _index(names: ClassNames, split: Callable[[str], list[str]]) -> dict[str, tuple[int, ...]]:
    classes: dict[str, tuple[int, ...]] = {}
    for index, name in enumerate(names.names):
        for part in {_plain(part) for part in split(name)} - {""}:
            classes[part] = (*classes.get(part, ()), index)
    return classes


def _plain(name: str) -> str:
    """The name without differences of spelling: capitals, spaces, hyphens, underscores, and the encoding of accents."""
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold())).strip()


def _list(items: list[str]) -> str:
    shown = ", ".join(items[:5])
    return shown + (f" and {len(items) - 5} more" if len(items) > 5 else "")
