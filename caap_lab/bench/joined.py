"""Plans of several runs as one, so that their results can be read together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from caap_lab.bench.plan import BenchmarkPlan, merged
from caap_lab.errors import InputError


def joined(plans: Sequence[BenchmarkPlan]) -> BenchmarkPlan:
    """The studies of all plans, without duplicates.

    Raises:
        InputError: protocols differ, or a name means different things in two plans.
    """
    first, *rest = plans
    if not rest:
        return first
    if any(plan.protocol != first.protocol for plan in rest):
        raise InputError(
            "These runs measured their curves by different protocols ("
            f"{'; '.join(dict.fromkeys(_protocol_text(plan) for plan in plans))}), whose numbers are not comparable. "
            "Open them one by one."
        )
    identities = [plan.identity for plan in plans]
    for what, known in (
        ("model", [one.models for one in identities]),
        ("method", [one.methods for one in identities]),
        ("metric", [one.metrics for one in identities]),
    ):
        _check_equal(what, known)
    for source in dict.fromkeys(source for one in identities for source in one.images):
        _check_equal(f"image of {source}", [one.images.get(source, {}) for one in identities])
    studies = []
    for study in (study for plan in plans for study in plan.studies):
        if study not in studies:
            studies.append(study)
    profiles = {plan.profile for plan in plans}
    notes = tuple(dict.fromkeys(note for plan in plans for note in plan.notes))
    profile = profiles.pop() if len(profiles) == 1 else ""
    return replace(first, studies=tuple(studies), profile=profile, notes=notes, identity=merged(identities))


def _check_equal(what: str, known: Iterable[Mapping[str, Any]]) -> None:
    """Raise InputError if a name means one thing in one plan and another in another."""
    seen: dict[str, Any] = {}
    for digests in known:
        for name, digest in digests.items():
            if seen.setdefault(name, digest) != digest:
                raise InputError(
                    f"The {what} {name} was another one in each of these runs (other weights, code or pixels under one "
                    "name), so their numbers do not belong together. Open them one by one, or run the older one "
                    "again."
                )


def _protocol_text(plan: BenchmarkPlan) -> str:
    return ", ".join(f"{name} {value}" for name, value in plan.protocol.to_dict().items())
