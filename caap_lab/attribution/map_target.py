"""Targets of maps: computed from the scores of all classes, stored in files, and resolved for a model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.scores import SCORES, score_of_run
from caap_lab.errors import InputError
from caap_lab.files import has_form
from caap_lab.models.base import HookedModel
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.explained import explained
from caap_lab.models.targets import Contrast, Direction, Given, Logit, Target, Targets, UnsavedFunction

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

TARGET_FORM = (
    int,
    {"kind": str, "of": int, "against": (int, None)},
    {"kind": str, "of": int},
    {"kind": str, "name": str},
)
"""The JSON form of a target: a class, or the result of `target_to_json` for other targets."""


def map_targets(model: HookedModel, m: "AttributionMap") -> tuple[HookedModel, Targets]:
    """The model to run and the resolved target of a map; see `explained`.

    Args:
        model: The model that made the map, or one with the same classes.
        m: The map.

    Raises:
        InputError: the target was a function and the map comes from a file; or it is invalid for this model.
    """
    # A map's class means the class's own logit, also for models where a user's class means a contrast.
    return explained(model, Logit(m.target) if isinstance(m.target, int) else m.target, 1)


def of_all_scores(
    target: Target, scores: Float[Tensor, "row col classes"], score: str, method: str
) -> Float[Tensor, "row col"]:
    """The map of a target, computed from those of all classes.

    Contrasts are differences of logits, or of attributions to them. For probabilities, a contrast with the mean of all
    classes is the probability of its class, and one between two classes is p(of) / (p(of) + p(against)).

    Args:
        target: The target.
        scores: Scores of all classes.
        score: The quantity of a score; see `AttributionMap.score`.
        method: Name of the method.

    Raises:
        InputError: the target cannot be computed from them.
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
            if all_finite(found):
                return found if score == "logprob" else found.exp()
        case Contrast() if "prob" not in score and "sigmoid" not in score:
            return target.value(scores)
        case given if score == "logit" and not isinstance(given, (Contrast, Direction)):
            return target.value(scores)
    raise InputError(
        f"{target.name} cannot be computed from {method}'s scores of all classes, which are each class's {score}: pass "
        "it to the method, target=..."
    )


def score_of(score: str, target: Target) -> str:
    """The quantity of a score for a method that attributes to probabilities: a target without one uses its value."""
    if target.index is not None or score_of_run(score) in SCORES:
        return score
    return score.replace("logprob", "value").replace("prob", "value")


def target_to_json(given: Given | UnsavedFunction) -> int | dict[str, Any]:
    """A target in JSON form: a class as a number; of a direction or a function only the name."""
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
        written: The result of `target_to_json`.
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
    """A direction's values as a tensor for a map's file; empty for other targets."""
    return {"direction": target.vector} if isinstance(target, Direction) else {}
