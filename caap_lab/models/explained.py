"""What a call explains: the targets that users give, found in a model's classes, and the model with logits for them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.classes import ClassNames
from caap_lab.models.device_dtype import at_least_float32
from caap_lab.models.directions import Direction, with_directions
from caap_lab.models.heads import ZeroShotHead
from caap_lab.models.targets import Contrast, FunctionOfLogits, Logit, Target, Targets, UnsavedFunction

Model = TypeVar("Model", bound=HookedModel)


def explained(model: Model, given: Any, count: int) -> tuple[Model, Targets]:
    """The model to run, and the resolved targets; everything that accepts a target calls this.

    The model is the given one, unless a target is a direction: then it is a model with the same weights, hook points,
    fingerprint and classes, whose logits have a column for each direction after those of the classes.

    Args:
        model: The model.
        given: See `TargetLike`; one for all images, or one per image.
        count: Number of images.

    Raises:
        InputError: a target is invalid for this model, or their number is not that of the images; also for a model
            without a classifier, unless all targets are directions.
    """
    model, (targets,) = _explained(model, [given], count)
    return model, targets


def several_explained(model: Model, given: Any, count: int) -> tuple[Model, dict[str, Targets]]:
    """As `explained`, for a mapping from names to targets, which are all computed from the same pass.

    Anything but a mapping is a single target, under its own name.
    """
    if not isinstance(given, Mapping):
        model, targets = explained(model, given, count)
        return model, {targets.name: targets}
    if not given:
        raise InputError("No targets were given; expected {'a name': a target, ...}.")
    model, each = _explained(model, list(given.values()), count)
    return model, dict(zip(map(str, given), each, strict=True))


def targets_of(model: HookedModel, given: Any, count: int) -> Targets:
    """Targets for `count` images; a direction must have a column in the model's logits. See `explained`."""
    other, targets = explained(model, given, count)
    assert other is model
    return targets


def predicted_targets(model: HookedModel, logits: Float[Tensor, "batch classes"]) -> Targets:
    """The model's prediction for each image, as targets."""
    return targets_of(model, logits[:, : model.n_classes].argmax(dim=1).tolist(), len(logits))


def by_contrast(model: HookedModel) -> bool:
    """True if a class means its contrast to the mean of all: for several text embeddings as classes."""
    return isinstance(getattr(model, "head", None), ZeroShotHead) and model.n_classes > 1


def resolved_target(
    given: Any,
    names: ClassNames,
    *,
    contrasts: bool = False,
    directions: Sequence[Any] = (),
    like: Tensor | None = None,
) -> Target:
    """A resolved target, with classes as indices.

    Args:
        given: See `TargetLike`.
        names: Names of the classes.
        contrasts: Whether a class means its contrast to all; see `by_contrast`.
        directions: Directions that have columns of logits after the classes.
        like: A tensor with the number format and device of the logits, on which functions are tried.

    Raises:
        InputError: it is not a valid target.
    """
    count = len(names)
    match given:
        case Contrast(of, None):
            if count == 1:
                raise InputError(f"cl.contrast({of!r}) is always 0 for a head with one output; give cl.logit({of!r}).")
            index = names.find(of)
            return Target(Contrast(index), f"{names.name(index)} against the mean of all classes", count)
        case Contrast(of, against):
            one, other = names.find(of), names.find(against)
            if one == other:
                raise InputError(f"cl.contrast({of!r}, {against!r}) compares a class with itself.")
            return Target(Contrast(one, other), f"{names.name(one)} rather than {names.name(other)}", count)
        case Logit(of):
            index = names.find(of)
            return Target(Logit(index) if contrasts else index, names.name(index), count)
        case Direction():
            return Target(given, given.name, count, count + list(directions).index(given))
        case UnsavedFunction(name):
            raise InputError(
                f"The target was a function of the logits, {name!r}, which files do not hold: pass it again, target=..."
            )
        case _ if callable(given):
            return _function(given, count, like)
        case _:
            index = names.find(given)
            if contrasts:
                return resolved_target(Contrast(index), names)
            return Target(index, names.name(index), count)


def _explained(model: Model, several: Sequence[Any], count: int) -> tuple[Model, list[Targets]]:
    each = [_one_each(model, given, count) for given in several]
    flat = [one for given in each for one in given]
    if not all(isinstance(one, Direction) for one in flat):
        model._require_classifier()
    new = [one for one in dict.fromkeys(o for o in flat if isinstance(o, Direction)) if one not in model.directions]
    if new:
        model = with_directions(model, new)
    names, contrasts = model.class_names, by_contrast(model)
    resolved: dict[int, Target] = {}  # by id: `flat` keeps all of them alive
    for one in flat:
        if id(one) not in resolved:
            like = torch.zeros(0, device=model.device, dtype=model.dtype)
            found = resolved_target(one, names, contrasts=contrasts, directions=model.directions, like=like)
            resolved[id(one)] = found
    return model, [Targets(tuple(resolved[id(one)] for one in given)) for given in each]


def _one_each(model: HookedModel, given: Any, count: int) -> list[Any]:
    """The given target of each image."""
    if isinstance(given, (Contrast, Logit, Direction, UnsavedFunction)) or callable(given):
        return [given] * count
    if isinstance(given, (list, tuple)) and any(not isinstance(one, (int, str)) for one in given):
        if len(given) != count:
            raise InputError(f"{len(given)} targets were given for {count} images; give one for all, or one per image.")
        return list(given)
    return list(model.targets(given, count))


def _function(function: FunctionOfLogits, n_classes: int, like: Tensor | None) -> Target:
    """A function of the logits as a target.

    Raises:
        InputError: it does not return one number per row, or a row's number depends on other rows.
    """
    name = getattr(function, "__name__", type(function).__name__)
    tried_in = None if like is None else at_least_float32(like.dtype)
    said = "a function of the logits" if name == "<lambda>" else name
    target = Target(function, said, n_classes, tried_in=tried_in)
    rows = torch.randn(
        3, n_classes, generator=torch.Generator(device="cpu").manual_seed(0), dtype=torch.float32, device="cpu"
    )
    rows = rows if like is None else rows.to(like)
    try:
        with torch.no_grad():
            together, alone = target.value(rows), target.value(rows[1:2])
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The target {target.name!r} fails on logits [row, class] of shape {list(rows.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not torch.allclose(together[1:2].float(), alone.float(), rtol=0.01, atol=0.01, equal_nan=True):
        raise InputError(
            f"The target {target.name!r} returns a number for a row of logits that depends on other rows; each row is "
            "a separate image, so reduce over the last axis only."
        )
    return target
