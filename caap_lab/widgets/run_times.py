"""Estimates of how long maps will take, from the passes that methods state and the durations of earlier runs."""

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel

_SHORTEST = 2.0
"""Shortest duration in seconds that is worth showing."""
_ENOUGH = 3
"""Smallest number of passes from which a map's time is used: with fewer, other steps take most of it."""


class RunTimes:
    """Expected seconds of maps of one model.

    Attributes:
        seconds_per_pass: Time of one forward pass, once it is measured; a map measures it better than one pass.
    """

    def __init__(self, model: HookedModel) -> None:
        self._size = ModelSize.of(model)
        self.seconds_per_pass: float | None = None
        self._measured: dict[str, float] = {}

    def keep(self, m: AttributionMap) -> None:
        """Update the estimates from a computed map."""
        self._measured[m.method] = m.seconds
        passes = self.passes(m.method)
        if passes is not None and passes >= _ENOUGH:
            self.seconds_per_pass = m.seconds / passes

    def passes(self, method: str) -> float | None:
        """Forward passes of one map; None if the method does not state them."""
        return stated_passes(method, self._size)

    def seconds(self, method: str) -> float | None:
        """Time of one map: as measured before, otherwise from its passes; None if unknown."""
        passes = self.passes(method)
        if method in self._measured:
            return self._measured[method]
        return None if passes is None or self.seconds_per_pass is None else passes * self.seconds_per_pass

    def text(self, method: str) -> str:
        """Text shown while a map is computed: "about 2 min"; empty if it is short or unknown."""
        seconds = self.seconds(method)
        return "" if seconds is None or seconds < _SHORTEST else f"about {_rounded(seconds)}"

    def details(self, method: str) -> str:
        """The cost in words: "about 4,000 forward passes of 31 ms"."""
        passes = self.passes(method)
        if passes is None:
            return ""
        each = "" if self.seconds_per_pass is None else f" of {1000 * self.seconds_per_pass:.0f} ms"
        return f"as much as {passes:,.0f} forward passes{each}" if passes >= 2 else ""


def stated_passes(method: str, size: ModelSize) -> float | None:
    """Forward passes of one map, a backward pass counting as two; None if the method states none."""
    try:
        return METHODS[method].passes(size)
    except InputError:
        return None


def _rounded(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{round(seconds, -1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
