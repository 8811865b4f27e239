"""Computed results of a layer sweep for one start, blank, neighbourhood and context: maps and curves by cutoff."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caap_lab.attribution.map import AttributionMap
from caap_lab.metrics.perturbation import PerturbationCurves
from caap_lab.plots.maps import map_range
from caap_lab.widgets.board import Ends


@dataclass(eq=False)
class CutoffMaps:
    """The maps and curves computed so far.

    Attributes:
        maps: By cutoff, as they were computed: one pass scores all classes.
        curves: Insertion and deletion, by cutoff and target.
    """

    maps: dict[int, AttributionMap] = field(default_factory=dict)
    curves: dict[tuple[int, Any], PerturbationCurves] = field(default_factory=dict)
    _of_targets: dict[tuple[int, Any], AttributionMap] = field(default_factory=dict)

    def map(self, cutoff: int, target: Any) -> AttributionMap | None:
        """The map of a target at a cutoff; None until it is computed. The target None is the prediction."""
        m = self.maps.get(cutoff)
        if m is None or target is None or m.target == target:
            return m
        known = self._of_targets.get((cutoff, target))
        if known is None:
            known = self._of_targets[cutoff, target] = m.for_target(target)
        return known

    def of_target(self, target: Any) -> dict[int, AttributionMap]:
        """All maps of a target, by cutoff."""
        found = {cutoff: self.map(cutoff, target) for cutoff in sorted(self.maps)}
        return {cutoff: m for cutoff, m in found.items() if m is not None}

    def curves_of(self, target: Any) -> dict[int, PerturbationCurves]:
        """All curves of a target, by cutoff."""
        return {cutoff: curves for (cutoff, of), curves in sorted(self.curves.items(), key=_cutoff) if of == target}

    def limits(self, target: Any, *, robust: bool) -> Ends | None:
        """One range of colours for the maps of all cutoffs; None if there is no map yet."""
        maps = list(self.of_target(target).values())
        if not maps:
            return None
        scores = np.stack([m.scores.double().numpy() for m in maps])
        return map_range(scores, maps[0].sign == "signed", robust=robust)


def _cutoff(kept: tuple[tuple[int, Any], PerturbationCurves]) -> int:
    return kept[0][0]
