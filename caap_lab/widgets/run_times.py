"""How long maps will take, from the passes that methods state and the seconds that runs took here."""

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel

_SHORTEST = 2.0
"""Seconds from which on it is worth saying how long something takes."""
_ENOUGH = 3
"""Passes of a map from which on its seconds are theirs, and not those of what comes before and behind them."""


class RunTimes:
    """Expected seconds of maps of one model.

    Attributes:
        seconds_per_pass: Of one forward pass, once one was measured; the last map tells more than a single pass.
    """

    def __init__(self, model: HookedModel) -> None:
        self._size = ModelSize.of(model)
        self.seconds_per_pass: float | None = None
        self._measured: dict[str, float] = {}

    def keep(self, m: AttributionMap) -> None:
        """Learn from a map that was computed."""
        self._measured[m.method] = m.seconds
        passes = self.passes(m.method)
        if passes is not None and passes >= _ENOUGH:
            self.seconds_per_pass = m.seconds / passes

    def passes(self, method: str) -> float | None:
        """Forward passes of one map; None where the method does not state them."""
        return stated_passes(method, self._size)

    def seconds(self, method: str) -> float | None:
        """Of one map: as measured before, else from its passes; None where nothing is known."""
        passes = self.passes(method)
        if method in self._measured:
            return self._measured[method]
        return None if passes is None or self.seconds_per_pass is None else passes * self.seconds_per_pass

    def text(self, method: str) -> str:
        """What is said while a map is computed: "about 2 min"; empty for short or unknown ones."""
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
    """Forward passes of one map, of which a backward pass counts as two; None where the method states none."""
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
