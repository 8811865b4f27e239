"""What is explained: a class, a contrast of classes, a direction of the head's feature, or any function of the logits.

A user gives a target of any of these kinds; `Target` is one as a model's logits are read for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.probability import probabilities


@dataclass(frozen=True)
class Contrast:
    """Why one class rather than another: the difference of their logits."""

    of: int | str
    """The class that is spoken for: index, WordNet id or word."""
    against: int | str | None = None
    """The class that is spoken against; None for the mean of all classes' logits."""


@dataclass(frozen=True)
class Logit:
    """A class's own logit, also where the default is its contrast to all classes."""

    of: int | str
    """The class: index, WordNet id or word."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of the feature that the head reads: a text embedding, or the weights of a probe."""

    vector: Float[Tensor, " width"]
    name: str
    """What maps and captions call it."""


FunctionOfLogits = Callable[[Float[Tensor, "row classes"]], Float[Tensor, " row"]]
"""Logits [row, class] -> one number per row; rows must not depend on each other."""
TargetLike = int | str | Contrast | Logit | Direction | FunctionOfLogits
"""What users give for one image. For several images: one for all, or a sequence of one each."""


def contrast(of: int | str, against: int | str | None = None) -> Contrast:
    """Why `of` rather than `against`: a target for every method, sweep, trace and metric.

    ```python
    cl.caap(model, image, target=cl.contrast("tabby", "tiger cat"))
    cl.caap(model, image, target=cl.contrast("tabby"))     # against the mean of all classes
    ```

    The score is the difference of the two logits. As a probability it is their sigmoid, p(of) / (p(of) + p(against)) of
    a softmax; against the mean of all classes it is the class's own probability, which a softmax gives unchanged.

    Args:
        of: Class index, WordNet id or word.
        against: Another class; None for the mean of all classes.
    """
    return Contrast(of, against)


def logit(of: int | str) -> Logit:
    """A class's own logit: what models with text embeddings as classes explain only if asked, see `contrast`."""
    return Logit(of)


def direction(vector: Float[Tensor, " width"], name: str) -> Direction:
    """A direction of the feature that the model's head reads, as a target: `vector` times the feature.

    With text embeddings as classes (CLIP) the score is what the head gives a class of that embedding: a scaled cosine.

    Args:
        vector: As many values as the head reads; not normalised.
        name: What maps and captions call it.
    """
    return Direction(vector, name)


@dataclass(frozen=True)
class Target:
    """A target as a model's logits are read for it."""

    given: int | Contrast | Logit | Direction | FunctionOfLogits
    """What was given, with classes as indices. The same model takes it again as a target."""
    name: str
    """For captions: "tabby", "tabby rather than tiger cat", "tabby against the mean of all classes"."""
    n_classes: int
    """Scores of the model's head; logits may have columns for directions behind them."""
    column: int = -1
    """Of a direction: its column among the logits."""

    @property
    def index(self) -> int | None:
        """The class that is spoken for; None where it is no class."""
        match self.given:
            case int(index) | Contrast(int(index)) | Logit(int(index)):
                return index
            case _:
                return None

    def value(self, logits: Float[Tensor, "*cell columns"]) -> Float[Tensor, "*cell"]:
        """The score that is explained, linear in the logits but for functions."""
        match self.given:
            case int(index) | Logit(int(index)):
                return logits[..., index]
            case Contrast(int(of), None):
                return logits[..., of] - logits[..., : self.n_classes].mean(dim=-1)
            case Contrast(int(of), int(against)):
                return logits[..., of] - logits[..., against]
            case Direction():
                return logits[..., self.column]
            case function:
                return self._call(function, logits[..., : self.n_classes])  # type: ignore[arg-type]

    def probability(
        self, logits: Float[Tensor, "*cell columns"], probability: str = "auto", *, log: bool = False
    ) -> Float[Tensor, "*cell"]:
        """The target as a probability, in float32 at least; see `contrast`.

        Directions and functions have none: what is read is their value, also as a logarithm.

        Args:
            logits: Logits of the model.
            probability: How logits become probabilities, see `caap_lab.models.probability`.
            log: Give its logarithm.
        """
        classes = logits[..., : self.n_classes]
        match self.given:
            case int(index) | Logit(int(index)):
                return probabilities(classes, probability, log=log)[..., index]
            case Contrast(int(of), None):
                return probabilities(classes - classes.mean(dim=-1, keepdim=True), probability, log=log)[..., of]
            case Contrast():
                wide = self.value(classes.to(torch.promote_types(logits.dtype, torch.float32)))
                return F.logsigmoid(wide) if log else wide.sigmoid()
            case _:
                return self.value(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def _call(self, function: FunctionOfLogits, logits: Float[Tensor, "*cell classes"]) -> Float[Tensor, "*cell"]:
        rows = logits.reshape(-1, logits.shape[-1])
        value = function(rows)
        if not isinstance(value, Tensor) or value.shape != rows.shape[:1]:
            given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"The target {self.name!r} must give one number per row of logits, a tensor [{len(rows)}] for logits "
                f"{list(rows.shape)}; it gave {given}."
            )
        return value.reshape(logits.shape[:-1])


@dataclass(frozen=True)
class Targets(Sequence[Target]):
    """One target per image of a batch."""

    each: tuple[Target, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.each)

    @overload
    def __getitem__(self, key: int) -> Target: ...
    @overload
    def __getitem__(self, key: slice) -> "Targets": ...
    def __getitem__(self, key: int | slice) -> "Target | Targets":
        """One image's target, or those of a slice of images."""
        return Targets(self.each[key]) if isinstance(key, slice) else self.each[key]

    def __iter__(self) -> Iterator[Target]:
        """One target per image."""
        return iter(self.each)

    @property
    def name(self) -> str:
        """For captions: the name of all, or those there are, each once."""
        return ", ".join(dict.fromkeys(target.name for target in self.each))

    def repeat(self, times: int) -> "Targets":
        """These targets one after the other, several times: for a batch of copies of the images."""
        return Targets(self.each * times)

    def value(self, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, " batch"]:
        """Each image's score that is explained; see `Target.value`."""
        return self._read(logits, lambda target, rows: target.value(rows))

    def probability(
        self, logits: Float[Tensor, "batch columns"], probability: str = "auto", *, log: bool = False
    ) -> Float[Tensor, " batch"]:
        """Each image's target as a probability; see `Target.probability`."""
        return self._read(logits, lambda target, rows: target.probability(rows, probability, log=log))

    def _read(
        self, logits: Float[Tensor, "batch columns"], read: Callable[[Target, Tensor], Tensor]
    ) -> Float[Tensor, " batch"]:
        if len(logits) != len(self):
            raise InputError(f"There are {len(self)} targets and {len(logits)} rows of logits.")
        if len(set(self.each)) == 1:
            return read(self.each[0], logits)
        return torch.cat([read(target, logits[row : row + 1]) for row, target in enumerate(self.each)])


def targets_of(model: HookedModel, given: Any, count: int) -> Targets:
    """Targets for a number of images, from one for all or a sequence of one each.

    Args:
        model: The model.
        given: See `TargetLike`.
        count: Number of images.

    Raises:
        InputError: one is no target of this model, or they are not as many as images; also for a model that has no
            classifier.
    """
    model._require_classifier()
    if isinstance(given, (Contrast, Logit, Direction)) or callable(given):
        return Targets((_target(model, given),) * count)
    if isinstance(given, (list, tuple)) and any(not isinstance(one, (int, str)) for one in given):
        if len(given) != count:
            raise InputError(f"{len(given)} targets were given for {count} images; give one for all, or one each.")
        return Targets(tuple(_target(model, one) for one in given))
    return Targets(tuple(_target(model, index) for index in model.targets(given, count)))


def predicted_targets(model: HookedModel, logits: Float[Tensor, "batch classes"]) -> Targets:
    """The model's own prediction for each image, as a target."""
    return targets_of(model, logits[:, : model.n_classes].argmax(dim=1).tolist(), len(logits))


def _target(model: HookedModel, given: Any) -> Target:
    names, n_classes = model.class_names, model.n_classes
    match given:
        case Contrast(of, None):
            index = names.find(of)
            return Target(Contrast(index), f"{names.name(index)} against the mean of all classes", n_classes)
        case Contrast(of, against):
            one, other = names.find(of), names.find(against)
            if one == other:
                raise InputError(f"cl.contrast({of!r}, {against!r}) compares a class with itself.")
            return Target(Contrast(one, other), f"{names.name(one)} rather than {names.name(other)}", n_classes)
        case Logit(of):
            index = names.find(of)
            return Target(index, names.name(index), n_classes)
        case _ if callable(given):
            name = getattr(given, "__name__", type(given).__name__)
            return Target(given, "a function of the logits" if name == "<lambda>" else name, n_classes)
        case _:
            index = names.find(given)
            return Target(index, names.name(index), n_classes)


def explained(model: HookedModel, given: Any, count: int) -> tuple[HookedModel, Targets]:
    """The model to run, and what reads its logits: the one door for all that takes a target.

    The model is the given one, or where a target is a direction one that shares all its weights, has hook points of
    its own, the same fingerprint, and a column of logits for each direction behind those of its classes.

    Args:
        model: The model.
        given: See `TargetLike`; one for all images or one each.
        count: Number of images.

    Raises:
        InputError: see `targets_of`.
    """
    return model, targets_of(model, given, count)


def several_explained(model: HookedModel, given: Any, count: int) -> tuple[HookedModel, dict[str, Targets]]:
    """As `explained`, for a mapping from a name to a target, which are all read from one pass.

    Anything but a mapping is one target, under its own name.
    """
    if not isinstance(given, Mapping):
        model, targets = explained(model, given, count)
        return model, {targets.name: targets}
    if not given:
        raise InputError("No target was given: {'a name': a target, ...}.")
    return model, {str(name): targets_of(model, one, count) for name, one in given.items()}
