"""Plans for the engine: CAAP's settings, checked against a model."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from caap_lab.engine.settings import SETTINGS, CaapSettings, cutoff_blocks
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, check_kind
from caap_lab.models.neighbourhoods import Neighbourhood, find_neighbourhood
from caap_lab.models.running import check_eval, held
from caap_lab.models.vit import HookedViT
from caap_lab.models.watched import check_no_hooks


@dataclass(frozen=True)
class CaapPlan:
    """Blocks, context and approximations of a run of patched contexts."""

    start: int
    cutoffs: tuple[int, ...]
    """Ascending; maps share all blocks before their own cutoff."""
    neighbourhood: Neighbourhood
    context: str
    attention: str
    tail: str
    direction: str = "insert"


def plan_of(model: HookedModel, settings: CaapSettings) -> CaapPlan:
    """The plan of one map.

    Raises:
        InputError: settings are invalid for the model or contradict each other.
    """
    check_kind(model, "caap", ("vit", "cnn"))
    context = settings.context or ("free" if model.kind == "cnn" else "clamped")
    stop = cutoff_blocks(settings.cutoff, model.n_layers)
    if context == "frozen" and stop > 0:
        stop = model.n_layers
    _check_start(model, settings.start, stop)
    _check_context(model, settings, context)
    neighbourhood = find_neighbourhood(settings.neighbourhood)
    return CaapPlan(
        settings.start, (stop,), neighbourhood, context, settings.attention, settings.tail, settings.direction
    )


def check_ready(model: HookedModel) -> None:
    """Raise InputError for a model that has hooks or is in training mode.

    Raises:
        InputError: it is; the message says what to do first.
    """
    with held(model):  # hooks that another thread currently uses are gone when it has finished
        check_no_hooks(model, "CAAP's engine")
    check_eval(model)


def joined(plans: Iterable[CaapPlan]) -> list[CaapPlan]:
    """Plans that differ only in start and cutoff, merged into one plan per start with all of its cutoffs."""
    by_start: dict[int, CaapPlan] = {}
    for plan in plans:
        before = by_start.setdefault(plan.start, plan)
        by_start[plan.start] = replace(before, cutoffs=tuple(sorted({*before.cutoffs, *plan.cutoffs})))
    return list(by_start.values())


def written_settings(model: HookedModel, settings: CaapSettings, plan: CaapPlan, blank: str) -> dict[str, Any]:
    """The settings that determine a map's numbers, as maps and sweeps record them.

    The direction stands there only if it is "remove": without it a map, or a key, means what it did before there were
    two.

    Args:
        model: The model, whose own values replace None: the cutoff in blocks, the context by name.
        settings: The settings.
        plan: Their plan on this model.
        blank: Name of the blank in results.
    """
    values = settings.to_dict(blank) | {"cutoff": plan.cutoffs[0], "context": plan.context}
    return {
        name: value
        for name, value in values.items()
        if SETTINGS[name].metadata["decides"]
        and (name, value) != ("direction", "insert")
        and (model.kind != "cnn" or SETTINGS[name].metadata["cnn"])
    }


def _check_start(model: HookedModel, start: int, stop: int) -> None:
    if start >= model.n_layers:
        raise InputError(f"start={start!r} must be a whole number from 0 to {model.n_layers - 1}.")
    if start and start >= stop:
        raise InputError(f"start={start} leaves no block to patch before cutoff={stop}.")


def _check_context(model: HookedModel, settings: CaapSettings, context: str) -> None:
    attention, tail = settings.attention, settings.tail
    if model.kind == "cnn" and (context, attention, tail) != ("free", "exact", "exact"):
        raise InputError(
            f"context={context!r}, attention={attention!r}, tail={tail!r}: {model.model_name} is a CNN, where CAAP "
            "runs in the free context and has no attention to approximate; omit all three."
        )
    if model.kind == "cnn" and settings.max_memory is not None:
        raise InputError("max_memory=... is for Vision Transformers; on a CNN, chunk_size bounds memory.")
    if context != "clamped" and (attention, tail) != ("exact", "exact"):
        raise InputError(f"attention={attention!r} and tail={tail!r} approximate context='clamped', not {context!r}.")
    if context == "dropped" and isinstance(model, HookedViT) and not model.spec.live_prefix:
        raise InputError(
            "context='dropped' resets all patch tokens to the blank, but this model has no class token to remember "
            "them: its map would be constant."
        )
