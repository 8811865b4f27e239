"""From a transformers or adapter folder to the parts of a `HookedViT`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.hugging_face.adapter import base_class, count_trained_classes, merge, trained_modules
from caap_lab.models.hugging_face.folder import AdapterFolder, CheckpointFolder
from caap_lab.models.hugging_face.module import SUPPORTED, build_module
from caap_lab.models.hugging_face.preprocessing import read_preprocessing
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.twins import timm_twin
from caap_lab.notes import note

_ANY_SIZE = ("dinov2", "dinov2_with_registers", "dinov3_vit")
"""Types whose model takes photos at the size of the image processor, whatever config.json says."""


@dataclass(frozen=True)
class Parts:
    """The parts of a `HookedViT`."""

    vit: nn.Module
    """timm's model with the checkpoint's weights."""
    head: nn.Module | None
    """The head, if timm has none of that kind."""
    preprocessing: Preprocessing
    class_names: ClassNames | None
    """From the checkpoint; None if it does not name its classes."""


def read_parts(
    folder: CheckpointFolder | AdapterFolder,
    image_size: tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Parts:
    """The parts of a model that was saved by transformers, or of an adapter for one.

    Without preprocessing settings in the folder, those of the family's published checkpoints are used and logged.

    Args:
        folder: The opened folder; the base model of an adapter has to be a transformers model too.
        image_size: (height, width) in pixels, instead of the checkpoint's; positions are resampled as in transformers.
        mean: Mean of each colour, instead of the checkpoint's.
        std: Standard deviation of each colour, instead of the checkpoint's.

    Raises:
        InputError: something in the folder is not supported; the message says what.
        CheckpointError: the weights do not fit.
    """
    module = _module(folder)
    own = read_preprocessing(folder.path)
    if own is None and isinstance(folder, AdapterFolder):
        own = read_preprocessing(folder.base.path)
    config: Any = module.config
    size = image_size or own_image_size(folder.name, config, own)
    twin = timm_twin(module, image_size=size)
    if twin is None:
        raise InputError(f"{type(module).__name__} of {folder.name} is not supported. {SUPPORTED}")
    preprocessing = own or Preprocessing.from_timm(twin.model)
    if own is None and (mean is None or std is None):
        note(
            f"{folder.name} has no preprocessor_config.json: photos are normalised as for {type(module).__name__}'s "
            f"published checkpoints, with mean {list(preprocessing.mean)} and std {list(preprocessing.std)}. If the "
            "model was trained with other values, give them as mean=... and std=...."
        )
    preprocessing = replace(
        preprocessing,
        image_size=size,
        mean=preprocessing.mean if mean is None else tuple(mean),
        std=preprocessing.std if std is None else tuple(std),
    )
    return Parts(twin.model, twin.head, preprocessing, class_names(twin.class_names))


def class_names(names: Sequence[str] | None) -> ClassNames | None:
    """A checkpoint's class names, with WordNet ids if they are ImageNet's classes in ImageNet's order."""
    if names is None:
        return None
    imagenet = ClassNames.imagenet1k()
    if len(names) == len(imagenet):
        alike = sum(name.split(",")[0].strip() == imagenet.name(index) for index, name in enumerate(names))
        if alike > _ALIKE * len(names):
            return ClassNames(tuple(names), imagenet.ids)
    return ClassNames(tuple(names))


_ALIKE = 0.9
"""Fraction of ImageNet's first names that have to match: a few have several spellings."""


def _module(folder: CheckpointFolder | AdapterFolder) -> nn.Module:
    if isinstance(folder, CheckpointFolder):
        return build_module(folder)
    n_classes = count_trained_classes(folder)
    base = build_module(folder.base, base_class(folder), n_classes, trained_modules(folder))
    return merge(folder, base)


def own_image_size(name: str, config: Any, own: Preprocessing | None) -> tuple[int, int]:
    """The image size of a model according to its configuration and its image processor.

    Args:
        name: Name of the checkpoint, for messages.
        config: The model's configuration.
        own: The preprocessing of its image processor; None if it has none.

    Raises:
        InputError: they disagree, and the model takes one size only.
    """
    config = getattr(config, "vision_config", config)
    native = _pair(config.image_size)
    if own is None or own.image_size == native:
        return native
    if config.model_type not in _ANY_SIZE:
        raise InputError(
            f"The model of {name} is built for images of {native[0]} x {native[1]} pixels, but its image "
            f"processor outputs {own.image_size[0]} x {own.image_size[1]}. Choose one: image_size={list(native)} or "
            f"image_size={list(own.image_size)}."
        )
    return own.image_size


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
