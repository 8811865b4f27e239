"""Differences of two maps of one image, patch by patch: of scores or of ranks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.models.targets import Contrast, Direction, Given, UnsavedFunction

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

RANK = "rank"
"""The quantity of a score after `AttributionMap.ranks`."""
RANK_SUM = "rank sum"
"""What a score of two maps' rank sum is."""
DIFFERENCE = "difference in "
"""Prefix of the common quantity of both maps."""
_SHOWN = 2
"""Largest number of differing settings in the name of a difference."""


def ranks_of(scores: Float[Tensor, "row col"]) -> Float[Tensor, "row col"]:
    """The fraction of the other patches with a lower score, from 0 to 1; tied patches get their mean rank.

    NaN has no rank, and does not count as a patch for the others.
    """
    places = places_of(scores)
    known = int(places.isfinite().sum())
    return (places / max(known - 1, 1)).float()


def places_of(scores: Float[Tensor, "row col"]) -> Float[Tensor, "row col"]:
    """How many patches lie lower, half of the ties among them: 0 for the lowest. In float64 on the CPU."""
    places = rankdata(scores.detach().cpu().double().numpy(), axis=None, nan_policy="omit")
    return torch.from_numpy(places - 1).reshape(scores.shape)


def difference(a: "AttributionMap", b: "AttributionMap") -> "AttributionMap":
    """The map of a's scores minus b's, whose name and settings record both maps.

    Raises:
        InputError: the maps are not of the same image, or their scores cannot be subtracted.
    """
    _check(a, b)
    same_method, same_model = a.method == b.method, a.model_name == b.model_name
    differing = [key for key in {**a.settings, **b.settings} if a.settings.get(key) != b.settings.get(key)]
    say = differing if same_method else []
    # A map that is the same for any class gets the target of the other.
    targets = (b, b) if b.class_specific and not a.class_specific else (a, b if b.class_specific else a)
    target, name = _target(*targets)
    return replace(
        a,
        scores=a.scores - b.scores,
        target=target,
        target_name=name,
        method=f"{_named(a.method, a.settings, say)} - {_named(b.method, b.settings, say)}",
        score=a.score if a.score.startswith(DIFFERENCE) else f"{DIFFERENCE}{a.score}",
        sign="signed",
        settings={"first": {"method": a.method, **a.settings}, "second": {"method": b.method, **b.settings}},
        model_name=a.model_name if same_model else f"{a.model_name} - {b.model_name}",
        fingerprint=a.fingerprint if a.fingerprint == b.fingerprint else "",
        all_scores=None,
        standard_errors=None,
        seconds=a.seconds + b.seconds,
        image_digest=a.image_digest if a.image_digest == b.image_digest else "",
        class_specific=a.class_specific or b.class_specific,
    )


def _check(a: "AttributionMap", b: "AttributionMap") -> None:
    if a.grid != b.grid:
        raise InputError(
            f"{a.method} has {a.grid[0]} x {a.grid[1]} scores and {b.method} {b.grid[0]} x {b.grid[1]}: only maps on "
            "the same grid can be subtracted."
        )
    if not torch.equal(a.image, b.image):
        raise InputError(
            "These are maps of different images: only maps of the same image can be subtracted. To compare methods "
            "over several images use a metric, see cl.benchmark."
        )
    if a.score != b.score:
        raise InputError(
            f"A score of {a.method} is {a.score}, but one of {b.method} is {b.score}: their units differ. "
            "Compare their ranks: a.ranks() - b.ranks()."
        )


def _named(method: str, settings: Mapping[str, Any], keys: list[str]) -> str:
    """Name of a method with the settings in which it differs from the other."""
    if "second" in settings:  # itself a difference: its name is complete, but needs brackets
        return f"({method})"
    said = [f"{key} {settings.get(key)}" for key in keys[:_SHOWN]] + ["..."] * (len(keys) > _SHOWN)
    return f"{method} ({', '.join(said)})" if said else method


def _target(a: "AttributionMap", b: "AttributionMap") -> tuple[Given, str]:
    """Target of a difference of two maps: the common one, or for two classes the contrast of one with the other."""
    if _same(a.target, b.target):
        return a.target, a.target_name
    match a.target, b.target:
        case (int(of), int(against)) | (Contrast(int(of), None), Contrast(int(against), None)):
            names = a.class_names
            one, other = (a.target_name, b.target_name) if names is None else (names.name(of), names.name(against))
            return Contrast(of, against), f"{one} rather than {other}"
    name = f"{a.target_name} - {b.target_name}"
    return cast(Given, UnsavedFunction(name)), name  # not a function of one model's logits


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Direction) and isinstance(other, Direction):
        return one.name == other.name and torch.equal(one.vector, other.vector)
    return type(one) is type(other) and bool(one == other)
