"""The target of a sweep, in the forms that images need and in which trials are stored."""

from dataclasses import dataclass
from typing import Any

from caap_lab.bench.target_rule import WORDS, TargetRule
from caap_lab.models.base import HookedModel
from caap_lab.models.explained import by_contrast, explained
from caap_lab.models.targets import Contrast, Direction, Logit, TargetLike


@dataclass(frozen=True, eq=False)
class SweepTarget:
    """A sweep's target."""

    rule: TargetRule | int
    """The target of each image; classes are indices."""
    written: TargetRule
    """The target as trials store it: classes are "class 3", as before there were other targets."""
    by_contrast: bool
    """True if a class means its contrast to the mean of all."""

    @classmethod
    def of(cls, model: HookedModel, target: TargetLike | None) -> "SweepTarget":
        """A target as `sweep_cutoffs` accepts it.

        Raises:
            InputError: it is not a target of this model.
        """
        if not isinstance(target, Direction):
            model._require_classifier()
        match target:
            case None | "prediction" | "label":
                word = target or "prediction"
                return cls(word, word, by_contrast(model))
            case Contrast(of, against):
                one, other = _class(model, of), None if against is None else _class(model, against)
                if not isinstance(one, str) and not isinstance(other, str):
                    explained(model, target, 1)
                return cls(Contrast(one, other), Contrast(_text(one), None if other is None else _text(other)), False)
            case Logit(of) if of in WORDS:
                return cls(target, target, False)
            case Logit(of):
                index = model.target(of)
                return cls(Logit(index), _text(index), False)
            case Direction():
                explained(model, target, 1)
                return cls(target, target, False)
            case _ if callable(target):
                explained(model, target, 1)
                return cls(target, target, False)
        index = model.target(target)
        return cls(index, _text(index), by_contrast(model))


def _class(model: HookedModel, of: int | str) -> Any:
    return of if of in WORDS else model.target(of)


def _text(of: int | str) -> str:
    return of if isinstance(of, str) else f"class {of}"
