"""timm models that compute the same as a Hugging Face or torchvision model."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from caap_lab.models.device_dtype import plain_defaults
from caap_lab.models.twins.check import check_same
from caap_lab.models.twins.families import family_of_class
from caap_lab.models.twins.source import check_weights, in_full_precision, without_adapters


@dataclass(frozen=True)
class Twin:
    """A timm model with another model's weights and class names.

    `HookedViT(twin.model, head=twin.head, class_names=twin.class_names, name=twin.name)` wraps it.
    """

    model: nn.Module
    """timm's model, in evaluation mode, on the original's device and in its number format. Its `pretrained_cfg` has the
    mean, standard deviation and crop of the family's published checkpoints."""
    head: nn.Module | None
    """The head to pass to `HookedViT` if timm has no such head itself (DINOv2's classifier); otherwise None."""
    class_names: tuple[str, ...] | None
    """The class names in the original's configuration, if it has a classifier and they are not just numbered."""
    name: str
    """Name of the model in results: the checkpoint's name or folder if the original knows it, otherwise its class."""


def timm_twin(module: nn.Module, image_size: tuple[int, int] | None = None) -> Twin | None:
    """The timm twin of a model; None if its class has none.

    The twin is a snapshot: its weights are copies, and later changes of the original have no effect. PEFT adapters in
    the model are merged, in a copy, in their current state. The twin's output is what users of the original read: class
    scores, or else image embeddings or pooled features; if the original does not pool, the class token or the mean
    patch.

    Args:
        module: A Vision Transformer of transformers or torchvision, as loaded; it is not changed.
        image_size: (height, width) of the twin's images in pixels, if not the configured one; positions are resampled
            as in the original.

    Raises:
        InputError: the model has a feature that timm's model does not support; or their outputs on a random batch
            differ by more than 1e-4 of the largest value.
    """
    family = family_of_class(type(module))
    if family is None:
        return None
    dtype = check_weights(module)
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]), plain_defaults():
        original = in_full_precision(module)
        plain = without_adapters(original)
        blueprint = family(plain, image_size)
        model = blueprint.build()
        check_same(original, plain, blueprint, model)
        head = None if blueprint.head is None else blueprint.head.to(dtype)
        model = model.to(dtype)
    return Twin(model, head, configured_names(module, blueprint.n_classes), _name(module))


def configured_names(module: Any, n_classes: int) -> tuple[str, ...] | None:
    """Class names in a transformers model's configuration; None if they are just numbered or their number is wrong."""
    names = getattr(getattr(module, "config", None), "id2label", None) or {}
    if n_classes == 0 or len(names) != n_classes or all(str(name) == f"LABEL_{index}" for index, name in names.items()):
        return None
    return tuple(str(names[index]) for index in sorted(names))


def _name(module: Any) -> str:
    return str(getattr(getattr(module, "config", None), "name_or_path", "") or type(module).__name__)
