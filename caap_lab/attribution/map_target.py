"""What a map explains: read from the scores of all classes, kept in files, and given to what reads logits for a map."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.scores import SCORES, score_of_run
from caap_lab.errors import InputError
from caap_lab.files import has_form
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import (
    Contrast,
    Direction,
    Given,
    Logit,
    Target,
    Targets,
    UnsavedFunction,
    explained,
)

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

TARGET_FORM = (
    int,
    {"kind": str, "of": int, "against": (int, None)},
    {"kind": str, "of": int},
    {"kind": str, "name": str},
)
"""Of a target in JSON: a class, or what `target_to_json` makes of another."""


def map_targets(model: HookedModel, m: "AttributionMap") -> tuple[HookedModel, Targets]:
    """The model to run, and what reads its logits, for a map's own target; see `explained`.

    Args:
        model: The model that made the map, or one with the same classes.
        m: The map.

    Raises:
        InputError: the target was a function and the map comes from a file; or it is no target of this model.
    """
    # A map's class is the class's own logit, also where a class that a user gives stands for a contrast.
    return explained(model, Logit(m.target) if isinstance(m.target, int) else m.target, 1)


def of_all_scores(
    target: Target, scores: Float[Tensor, "row col classes"], score: str, method: str
) -> Float[Tensor, "row col"]:
    """A target's map from those of all classes.

    Contrasts are differences of logits, or of attributions to them. Of probabilities a contrast with the mean of all
    classes is its class's own, and one of two classes p(of) / (p(of) + p(against)).

    Args:
        target: What is explained.
        scores: Of all classes.
        score: What a score is, see `AttributionMap.score`.
        method: What made them.

    Raises:
        InputError: it does not follow from them.
    """
    softmax = score in ("prob", "logprob")
    match target.given:
        case int(index) | Logit(int(index)):
            return scores[..., index]
        case Contrast(int(of), None) if score_of_run(score) in ("prob", "logprob"):
            return scores[..., of]
        case Contrast(int(of), int(against)) if softmax:
            logs = scores if score == "logprob" else scores.log()
            found = F.logsigmoid(logs[..., of] - logs[..., against])
            if found.isfinite().all():
                return found if score == "logprob" else found.exp()
        case Contrast() if "prob" not in score and "sigmoid" not in score:
            return target.value(scores)
        case given if score == "logit" and not isinstance(given, (Contrast, Direction)):
            return target.value(scores)
    raise InputError(
        f"{target.name} does not follow from {method}'s scores of all classes, which are each class's {score}: give it "
        "to the method, target=..."
    )


def score_of(score: str, target: Target) -> str:
    """What a score of a target is, where a method attributes to a class's probability: what has none is its value."""
    if target.index is not None or score_of_run(score) in SCORES:
        return score
    return score.replace("logprob", "value").replace("prob", "value")


def target_to_json(given: Given | UnsavedFunction) -> int | dict[str, Any]:
    """A target as JSON has it: a class as a number; of a direction and of a function the name alone."""
    match given:
        case int(index):
            return index
        case Contrast(of, against):
            return {"kind": "contrast", "of": of, "against": against}
        case Logit(of):
            return {"kind": "logit", "of": of}
        case Direction(_, name):
            return {"kind": "direction", "name": name}
        case UnsavedFunction(name):
            return {"kind": "function", "name": name}
        case function:
            return {"kind": "function", "name": getattr(function, "__name__", type(function).__name__)}


def target_from_json(written: Any, vector: Tensor | None = None) -> Given | UnsavedFunction | None:
    """A target from JSON; None if it is damaged.

    Args:
        written: What `target_to_json` gave.
        vector: A direction's values.
    """
    if not has_form(written, TARGET_FORM):
        return None
    match written:
        case int(index):
            return index
        case {"kind": "contrast", "of": of, "against": against}:
            return Contrast(of, against)
        case {"kind": "logit", "of": of}:
            return Logit(of)
        case {"kind": "direction", "name": name} if vector is not None and vector.ndim == 1:
            return Direction(vector, name)
        case {"kind": "function", "name": name}:
            return UnsavedFunction(name)
    return None


def vector_of(target: Any) -> Mapping[str, Tensor]:
    """A direction's values as a tensor of a map's file; nothing for other targets."""
    return {"direction": target.vector} if isinstance(target, Direction) else {}
