"""Folders that timm saved: what their config.json says of the model and of its classes."""

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
    """What builds the folder's model without its weights, with any further options of `timm.create_model`.

    Raises:
        InputError: the architecture is not timm's or not supported, or its weights are laid out in another way.
    """
    name = str(folder.settings["architecture"])
    if not timm.is_model(name):
        hint = nearest(name, supported_names())
        raise InputError(f"{CONFIG} of {folder.name} names the architecture {name!r}, which timm does not have.{hint}")
    reason = refusal(name)
    if reason is not None:
        raise InputError(f"{folder.name}: {reason}")
    if _settings(folder).get("label_offset"):
        raise InputError(f"The first rows of the classifier of {folder.name} stand for no class (label_offset).")
    if len(folder.weights) != 1:
        raise InputError(f"The weights of {folder.name} are split into {len(folder.weights)} files; save them as one.")
    options = folder.settings.get("model_args") or {}
    foreign = sorted(inspect.signature(timm.create_model).parameters.keys() & set(options))
    if foreign:
        raise InputError(f"model_args in {CONFIG} of {folder.name} says {', '.join(foreign)}, which is no model's.")
    make: Callable[..., nn.Module] = partial(timm.create_model, f"local-dir:{folder.path}", pretrained=False)
    try:
        if "model_type" in folder.settings:  # transformers has saved its wrapper around timm's model
            make = partial(_wrapped, name, folder.settings.get("pretrained_cfg") or {}, **options)
        with torch.device("meta"):  # shapes only
            make()
    except Exception as error:  # of many kinds: each of timm's classes checks its own arguments
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{CONFIG} of {folder.name} cannot be used: {reason}") from error
    return make


def _wrapped(name: str, settings: dict[str, Any], **options: Any) -> nn.Module:
    """The model as transformers builds it: settings say how photos are preprocessed, and do not count in building."""
    body: Any = timm.create_model(name, pretrained=False, **options)
    body.pretrained_cfg = {**body.pretrained_cfg, **settings}
    return body


def timm_class_names(folder: CheckpointFolder) -> ClassNames | None:
    """Names from label_names and label_descriptions, with the former as ids; None if config.json has none."""
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
    """The part that older files have alone, on the top level."""
    return folder.settings.get("pretrained_cfg") or folder.settings
