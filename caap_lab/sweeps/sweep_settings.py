"""The settings of a sweep: CAAP's options of each setting, and the text under which its trials are stored."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from caap_lab.engine.blanks import blank_name
from caap_lab.engine.plan import CaapPlan, check_ready, plan_of, written_settings
from caap_lab.engine.settings import DEFAULTS, CaapSettings
from caap_lab.errors import InputError
from caap_lab.models.names import nearest
from caap_lab.models.vit import HookedViT
from caap_lab.variant import Variant

Label = int | str | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting."""

    label: Label
    caap: CaapSettings
    plan: CaapPlan
    variant: Variant
    """Differences from CAAP's defaults, as benchmarks store them: equal settings share their trials."""

    @property
    def shared(self) -> Hashable:
        """Equal for settings whose maps come from one run on the image: those that differ only in range and score."""
        apart = ("start", "cutoff", "score")
        return json.dumps({k: v for k, v in self.variant.options.items() if k not in apart}, sort_keys=True)


def settings_of(model: HookedViT, changes: Mapping[Label, dict[str, Any]], fixed: Mapping[str, Any]) -> list[Setting]:
    """Settings by label; all are checked.

    Args:
        model: The model.
        changes: Label to the options of the setting.
        fixed: CAAP's options that are the same for all.

    Raises:
        InputError: an option is not known, is swept, or does not fit.
    """
    if not changes:
        raise InputError("A sweep needs at least one value.")
    swept = next(iter(changes.values()))
    for name in fixed:
        if name in swept:
            raise InputError(f"This sweep varies {name}, so it cannot be given as a fixed option.")
        if name not in DEFAULTS:
            known = [option for option in DEFAULTS if option not in swept]
            raise InputError(f"CAAP has no option {name!r}.{nearest(name, known)} It has {', '.join(known)}.")
    check_ready(model)
    defaults = CaapSettings()
    usual = written_settings(model, defaults, plan_of(model, defaults), str(defaults.blank))
    settings = []
    for label, change in changes.items():
        caap = CaapSettings(**{**fixed, **change})
        plan = plan_of(model, caap)
        written = written_settings(model, caap, plan, blank_name(model, caap.blank, caap.seed))
        differing = {name: value for name, value in written.items() if value != usual.get(name)}
        settings.append(Setting(label, caap, plan, Variant("caap", differing)))
    return settings
