"""Targets of explanations: a class, a contrast of classes, a direction of the head's feature, or a function of logits.

Users give a target of any of these kinds; a `Target` computes its value from a model's logits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.errors import InputError
from caap_lab.labels import named
from caap_lab.models.device_dtype import widened
from caap_lab.models.directions import Direction
from caap_lab.models.probability import probabilities


@dataclass(frozen=True)
class Contrast:
    """A contrast, one class rather than another: the difference of their logits."""

    of: int | str
    """The class in favour: index, WordNet id or word."""
    against: int | str | None = None
    """The class against; None for the mean of all classes' logits."""


@dataclass(frozen=True)
class Logit:
    """A class's own logit, also for models whose default is its contrast to all classes."""

    of: int | str
    """The class: index, WordNet id or word."""


@dataclass(frozen=True)
class UnsavedFunction:
    """The target of a loaded map that was a function of the logits, which files do not store."""

    name: str


FunctionOfLogits = Callable[[Float[Tensor, "row classes"]], Float[Tensor, " row"]]
"""A function from logits [row, class] to one number per row; rows must not affect each other."""
Given = int | Contrast | Logit | Direction | FunctionOfLogits
"""A target whose classes are indices."""
TargetLike = int | str | Contrast | Logit | Direction | FunctionOfLogits
"""A target as users give it for one image. For several images: one for all, or a sequence with one per image."""


def contrast(of: int | str, against: int | str | None = None) -> Contrast:
    """A target that asks why `of` rather than `against`, for every method, sweep, trace and metric.

    ```python
    cl.caap(model, image, target=cl.contrast("tabby", "tiger cat"))
    cl.caap(model, image, target=cl.contrast("tabby"))     # against the mean of all classes
    ```

    The score is the difference of the two logits. Its probability is the sigmoid of the difference, p(of) / (p(of) +
    p(against)) of a softmax; against the mean of all classes it is the class's own softmax probability.

    Args:
        of: Class index, WordNet id or word.
        against: Another class; None for the mean of all classes.
    """
    return Contrast(of, against)


def logit(of: int | str) -> Logit:
    """A class's own logit as a target, which is not the default for models with text embeddings as classes.

    ```python
    m = cl.caap(model, image, cl.logit(4))
    ```

    In those models all logits share a large common term, the cosine of any text with any photo, which says nothing
    about the class and dominates gradient methods. So for such a model a class means its contrast to the mean of all
    classes, as if `cl.contrast(of)` were given. For other models, and for a head with a single text, this is the same
    as the class itself.

    Args:
        of: Class index, WordNet id or word.
    """
    return Logit(of)


@dataclass(frozen=True)
class Target:
    """A resolved target, which computes its value from a model's logits."""

    given: Given
    """The target as given, with classes as indices. The same model accepts it again as a target."""
    name: str
    """For captions: "tabby", "tabby rather than tiger cat", "tabby against the mean of all classes"."""
    n_classes: int
    """Number of scores of the model's head; logits may have further columns for directions."""
    column: int = -1
    """For a direction: its column in the logits."""
    tried_in: torch.dtype | None = None
    """For a function: the number format of logits that it needs, because it may hold constants; None for any."""

    @property
    def index(self) -> int | None:
        """The class in favour; None if the target is not about a class."""
        return class_of(self.given)

    @property
    def has_probability(self) -> bool:
        """False for directions and functions."""
        return self.index is not None

    def value(self, logits: Float[Tensor, "*cell columns"]) -> Float[Tensor, "*cell"]:
        """The score that is explained; linear in the logits, except for functions.

        Targets of several logits are computed in at least float32, so that a half-precision format rounds only once.
        """
        wide = widened(logits[..., : self.n_classes])
        match self.given:
            case int(index) | Logit(int(index)):
                return logits[..., index]
            case Contrast(int(of), None):
                return wide[..., of] - wide.mean(dim=-1)
            case Contrast(int(of), int(against)):
                return wide[..., of] - wide[..., against]
            case Direction():
                return logits[..., self.column]
            case function:
                return self._call(function, wide)  # type: ignore[arg-type]

    def probability(
        self, logits: Float[Tensor, "*cell columns"], probability: str = "auto", *, log: bool = False
    ) -> Float[Tensor, "*cell"]:
        """The target as a probability, in at least float32; see `contrast`.

        Directions and functions have no probability: their value is returned, also for `log`.

        Args:
            logits: Logits of the model.
            probability: How logits become probabilities; see `caap_lab.models.probability`.
            log: Return its logarithm.
        """
        classes = widened(logits[..., : self.n_classes])
        match self.given:
            case int(index) | Logit(int(index)):
                return probabilities(classes, probability, log=log)[..., index]
            case Contrast(int(of), None):
                return probabilities(classes - classes.mean(dim=-1, keepdim=True), probability, log=log)[..., of]
            case Contrast():
                difference = self.value(logits)
                return F.logsigmoid(difference) if log else difference.sigmoid()
            case _:
                return self.value(logits).to(classes.dtype)

    def _call(self, function: FunctionOfLogits, logits: Float[Tensor, "*cell classes"]) -> Float[Tensor, "*cell"]:
        rows = logits.reshape(-1, logits.shape[-1]).to(self.tried_in or logits.dtype)
        value = function(rows)
        if not isinstance(value, Tensor) or value.shape != rows.shape[:1]:
            given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"The target {self.name!r} must return one number per row of logits, a tensor [{len(rows)}] for logits "
                f"{list(rows.shape)}; it returned {given}."
            )
        return (value if value.is_floating_point() else value.to(rows.dtype)).reshape(logits.shape[:-1])


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
        """The target of one image, or the targets of a slice of images."""
        return Targets(self.each[key]) if isinstance(key, slice) else self.each[key]

    def __iter__(self) -> Iterator[Target]:
        """Iterate over the targets, one per image."""
        return iter(self.each)

    @property
    def name(self) -> str:
        """For captions: the common name, or each distinct name; if there are many, only their number."""
        return named(target.name for target in self.each)

    @property
    def indices(self) -> list[int] | None:
        """The class indices if every target is the logit of a class; otherwise None."""
        found = [target.index for target in self.each if not isinstance(target.given, Contrast)]
        classes = [index for index in found if index is not None]
        return classes if len(classes) == len(self) else None

    def repeat(self, times: int) -> "Targets":
        """These targets, repeated: for a batch of several copies of the images."""
        return Targets(self.each * times)

    def value(self, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, " batch"]:
        """The score of each image that is explained; see `Target.value`."""
        return self._read(logits, lambda target, rows: target.value(rows))

    def probability(
        self, logits: Float[Tensor, "batch columns"], probability: str = "auto", *, log: bool = False
    ) -> Float[Tensor, " batch"]:
        """The target of each image as a probability; see `Target.probability`."""
        return self._read(logits, lambda target, rows: target.probability(rows, probability, log=log))

    def _read(
        self, logits: Float[Tensor, "batch columns"], read: Callable[[Target, Tensor], Tensor]
    ) -> Float[Tensor, " batch"]:
        if len(logits) != len(self):
            raise InputError(f"There are {len(self)} targets and {len(logits)} rows of logits.")
        rows: dict[Target, list[int]] = {}
        for row, target in enumerate(self.each):
            rows.setdefault(target, []).append(row)
        if len(rows) == 1:
            return read(self.each[0], logits)
        order = torch.tensor(
            [row for of in rows.values() for row in of], device=logits.device, dtype=torch.int64
        ).argsort()
        return torch.cat([read(target, logits[of]) for target, of in rows.items()])[order]


def class_of(given: Any) -> int | None:
    """The class in favour of a target with classes as indices; None for a direction or a function."""
    match given:
        case int(index) | Contrast(int(index)) | Logit(int(index)):
            return index
        case _:
            return None
