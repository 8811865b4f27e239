"""Directions of the head's feature as targets: a model with extra logits after those of its classes."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.base import KINDS, HookedModel
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.lock import share_lock
from caap_lab.models.width import passes_on

Model = TypeVar("Model", bound=HookedModel)


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the space of the feature that the head reads: a text embedding, or the weights of a probe."""

    vector: Float[Tensor, " width"] = field(repr=False)
    name: str
    """Name in maps and captions."""


def direction(vector: Float[Tensor, " width"] | Float[np.ndarray, " width"], name: str) -> Direction:
    """A direction in the head's feature space as a target: the dot product of `vector` and the feature.

    ```python
    probe = cl.direction(weights, "striped")
    cl.attribute(model, image, "libra_ixg_plus", probe)    # where does the model see stripes?
    ```

    The feature is the input of the head's last linear layer; the two heads of a distilled DeiT have one each, and the
    score is the mean of both. With text embeddings as classes (CLIP), the score is that of a class with this embedding:
    a scaled cosine. For a model without a classifier the feature is its output. There is no bias and no probability.
    Black boxes do not support directions, because their feature is not known.

    Args:
        vector: As many values as the head reads; normalised only if the classes are text embeddings.
        name: Name in maps and captions.

    Raises:
        InputError: `vector` is not a vector of finite numbers, or is zero; or there is no name.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"A direction needs a name for captions, such as 'striped', not {name!r}.")
    if isinstance(vector, np.ndarray):
        vector = torch.from_numpy(vector)
    if not isinstance(vector, Tensor) or not vector.is_floating_point() or vector.ndim != 1:
        given = f"{vector.dtype} {list(vector.shape)}" if isinstance(vector, Tensor) else type(vector).__name__
        raise InputError(f"The direction {name!r} is {given}; expected a floating-point tensor [width].")
    if not all_finite(vector) or not bool(vector.any()):
        raise InputError(f"The direction {name!r} is zero, or holds NaN or infinity.")
    return Direction(vector.detach().clone(), name)


def with_directions(model: Model, directions: Sequence[Direction]) -> Model:
    """A model with one more logit for each direction of the feature that its head reads.

    It shares the given model's weights, hook points and lock, and has its fingerprint and classes: `n_classes` does not
    count directions, and `hook_logits` does not include them. Only the classifier's own weights are copied and get
    additional rows. A model without a classifier gets one whose classes are the features. The given model is unchanged.

    Args:
        model: The model.
        directions: The directions, in the order of their logits.

    Raises:
        InputError: the model's internals are not known, its head does not end with a linear layer or text embeddings,
            or a direction does not have the width that the head reads.
    """
    classifiers = model.classifiers
    if not classifiers:
        raise InputError(
            f"{model.model_name} is a {KINDS[model.kind][0]}: the feature that its head reads is not known, so a "
            "direction cannot be its target. Use a class, a contrast or a function of its logits."
        )
    changes: dict[int, nn.Module] = {}
    with torch.inference_mode(False), torch.no_grad():
        for part in map(_last, classifiers):
            changes[id(part)] = _with_rows(model, part, directions)
    other = cast(Model, _exchanged(model, changes))
    other.directions = (*model.directions, *directions)
    other._fingerprint_of = model.fingerprint
    other.__dict__.pop("_head_widths", None)  # measured on the head of the given model
    share_lock(model.body, other.body)
    return other


def _last(head: nn.Module) -> nn.Module:
    """The part of a head that computes its scores."""
    if isinstance(head, nn.Sequential) and not passes_on(head):
        return _last(next(part for part in reversed(list(head)) if not passes_on(part)))
    return head


def _with_rows(model: HookedModel, part: nn.Module, directions: Sequence[Direction]) -> nn.Module:
    """A copy of a classifier with one more row per direction, without bias, and with the same hooks."""
    if isinstance(part, ZeroShotHead):
        texts = part.text_embeddings
        longer: nn.Module = copy.copy(part)
        rows = F.normalize(_rows(directions, texts.shape[1]), dim=-1).to(texts)
        longer._buffers = {**part._buffers, "text_embeddings": torch.cat([texts, rows])}
        return longer
    if passes_on(part):
        weight = torch.eye(model.n_classes, device=model.device, dtype=model.dtype)
        return _linear(part, torch.cat([weight, _rows(directions, model.n_classes).to(weight)]), None)
    if is_replaced(part) or type(part).forward is not nn.Linear.forward:
        raise InputError(
            "A direction needs a head that ends with a linear layer (torch.nn.Linear) or text embeddings; this "
            f"model's head ends with {type(part).__name__}. Use a class, a contrast or a function of the logits; or "
            "give the model a linear head, with adapters merged and not quantised."
        )
    weight, bias = cast(Tensor, part.weight), cast(Tensor | None, part.bias)
    rows = _rows(directions, weight.shape[1]).to(weight)
    none = None if bias is None else bias.new_zeros(len(rows))
    return _linear(part, torch.cat([weight, rows]), None if none is None else torch.cat([cast(Tensor, bias), none]))


def _linear(part: nn.Module, weight: Float[Tensor, "row width"], bias: Float[Tensor, " row"] | None) -> nn.Linear:
    """A linear layer that replaces another part."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight)
    linear.bias = None if bias is None else nn.Parameter(bias)  # type: ignore[assignment]
    linear.__dict__.update({name: value for name, value in vars(part).items() if "_hook" in name})
    return linear.train(part.training).requires_grad_(any(p.requires_grad for p in part.parameters()))


def _rows(directions: Sequence[Direction], width: int) -> Float[Tensor, "direction width"]:
    """Directions as the rows of a matrix, in float64 on the CPU.

    Raises:
        InputError: a direction has the wrong width.
    """
    for one in directions:
        if len(one.vector) != width:
            raise InputError(
                f"The direction {one.name!r} has {len(one.vector)} values; this model's head reads {width}. (A text "
                "embedding is a direction of a model with prompts: model.with_prompts(...).)"
            )
    return torch.stack([one.vector.cpu().double() for one in directions])


def _exchanged(module: nn.Module, changes: Mapping[int, nn.Module]) -> nn.Module:
    """A module with some submodules replaced, by id: itself if it contains none of them, else a shallow copy."""
    if id(module) in changes:
        return changes[id(module)]
    parts = {name: None if part is None else _exchanged(part, changes) for name, part in module._modules.items()}
    if all(new is module._modules[name] for name, new in parts.items()):
        return module
    copied = copy.copy(module)
    copied._modules = parts
    return copied
