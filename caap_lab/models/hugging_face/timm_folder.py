"""Folders saved by timm: the model and the class names in their config.json."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.hugging_face.folder import CONFIG, CheckpointFolder
from caap_lab.models.names import nearest
from caap_lab.models.supported import refusal, supported_names


def timm_builder(folder: CheckpointFolder) -> Callable[..., nn.Module]:
    """A function that builds the folder's model without its weights and takes options of `timm.create_model`.

    Raises:
        InputError: the architecture is not timm's or not supported, or its weights are stored in an unsupported way.
    """
    name = str(folder.settings["architecture"])
    if not timm.is_model(name):
        hint = nearest(name, supported_names())
        raise InputError(f"{CONFIG} of {folder.name} names the architecture {name!r}, which timm does not have.{hint}")
    reason = refusal(name)
    if reason is not None:
        raise InputError(f"{folder.name}: {reason}")
    if _settings(folder).get("label_offset"):
        raise InputError(f"The first rows of the classifier of {folder.name} are not classes (label_offset).")
    if len(folder.weights) != 1:
        raise InputError(f"The weights of {folder.name} are split into {len(folder.weights)} files; save them in one.")
    options = folder.settings.get("model_args") or {}
    foreign = sorted(inspect.signature(timm.create_model).parameters.keys() & set(options))
    if foreign:
        raise InputError(f"model_args in {CONFIG} of {folder.name} has unknown arguments: {', '.join(foreign)}.")
    make: Callable[..., nn.Module] = partial(timm.create_model, f"local-dir:{folder.path}", pretrained=False)
    try:
        if "model_type" in folder.settings:  # saved by transformers' wrapper around timm's model
            make = partial(_wrapped, name, folder.settings.get("pretrained_cfg") or {}, **options)
        with torch.device("meta"):  # shapes only
            make()
    except Exception as error:  # many kinds: each of timm's classes checks its own arguments
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{CONFIG} of {folder.name} cannot be used: {reason}") from error
    return make


def _wrapped(name: str, settings: dict[str, Any], **options: Any) -> nn.Module:
    """The model as transformers builds it: `settings` only describe the preprocessing and are not used."""
    body: Any = timm.create_model(name, pretrained=False, **options)
    body.pretrained_cfg = {**body.pretrained_cfg, **settings}
    return body


def timm_class_names(folder: CheckpointFolder) -> ClassNames | None:
    """Class names from label_descriptions, with label_names as ids; None if config.json has none."""
    settings = {**_settings(folder), **folder.settings}
    names: Any = settings.get("label_names", settings.get("labels"))
    told: Any = settings.get("label_descriptions") or {}
    if isinstance(names, dict):
        places = {int(place): str(name) for place, name in names.items()}
        if sorted(places) != list(range(len(places))):
            return None  # some classes have no name
        names = [places[place] for place in range(len(places))]
    if not names or all(name == f"LABEL_{place}" for place, name in enumerate(names)):
        return None
    if not told:
        return ClassNames(tuple(map(str, names)))
    return ClassNames(tuple(str(told.get(name, name)) for name in names), tuple(map(str, names)))


def _settings(folder: CheckpointFolder) -> dict[str, Any]:
    """The model settings, which older files have at the top level."""
    return folder.settings.get("pretrained_cfg") or folder.settings
