"""The settings of a sweep: CAAP's options that each one stands for, and the text that its trials are kept under."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from caap_lab.attribution.caap import caap, check_caap, cutoff_blocks
from caap_lab.engine.blanks import blank_name
from caap_lab.engine.plan import Plan
from caap_lab.errors import InputError
from caap_lab.models.names import nearest
from caap_lab.models.vit import HookedViT
from caap_lab.variant import Variant

Label = int | str | tuple[int, int]

DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in signature(caap).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("batch_size", "progress")
}
"""CAAP's options, which a sweep holds fixed but for those that it sweeps."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting."""

    label: Label
    options: dict[str, Any]
    """All of CAAP's options."""
    plan: Plan
    spec: Variant
    """What differs from CAAP's defaults, as benchmarks keep it: equal settings share their trials."""

    @property
    def shared(self) -> Hashable:
        """Equal for settings whose maps come from one run of the image: those that differ in range and score alone."""
        apart = ("start", "cutoff", "score")
        return json.dumps({k: v for k, v in self.spec.options.items() if k not in apart}, sort_keys=True)


def settings_of(model: HookedViT, changes: Mapping[Label, dict[str, Any]], fixed: Mapping[str, Any]) -> list[Setting]:
    """Settings by label; all are checked.

    Args:
        model: The model.
        changes: Label to the options that it stands for.
        fixed: CAAP's options that are the same for all.

    Raises:
        InputError: an option is not known, is swept, or does not fit.
    """
    if not changes:
        raise InputError("A sweep needs at least one value.")
    swept = next(iter(changes.values()))
    for name in fixed:
        if name in swept:
            raise InputError(f"{name} is what this sweep goes over; it cannot be held fixed as well.")
        if name not in DEFAULTS:
            known = [option for option in DEFAULTS if option not in swept]
            raise InputError(f"CAAP has no option {name!r}.{nearest(name, known)} It has {', '.join(known)}.")
    return [_setting(model, label, {**DEFAULTS, **fixed, **change}) for label, change in changes.items()]


def _setting(model: HookedViT, label: Label, options: dict[str, Any]) -> Setting:
    rest = {name: value for name, value in options.items() if name != "cutoff"}
    plan = check_caap(model, cutoffs=[options["cutoff"]], **rest)
    told = {
        "cutoff": plan.cutoffs[0],
        "start": plan.start,
        "neighbourhood": options["neighbourhood"],
        "blank": blank_name(model, options["blank"], options["seed"]),
        "context": plan.context,
        "attention": plan.attention,
        "tail": plan.tail,
        "score": options["score"],
        "seed": int(options["seed"]),
    }
    defaults = {**DEFAULTS, "cutoff": cutoff_blocks(None, model.n_layers), "context": "clamped"}
    spec = Variant("caap", {name: value for name, value in told.items() if value != defaults[name]})
    return Setting(label, options, plan, spec)
