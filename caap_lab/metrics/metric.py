"""What a metric of maps is: the numbers that it gives, what they are called, and what computes them."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.errors import InputError
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.base import HookedModel
from caap_lab.models.names import nearest

Better = Literal["higher", "lower"]
Mask = Bool[np.ndarray, "height width"]
PERCENT = "%"


@dataclass(frozen=True)
class MetricColumn:
    """One number that a metric gives of each map: a column of rows, tables and plots."""

    name: str
    """Of the column in rows: "insdel"."""
    label: str = ""
    """At the head of tables: "InsDel"; by default the name."""
    title: str = ""
    """On axes and in menus: "insertion - deletion"; by default the label."""
    better: Better = "higher"
    """Which values are better."""
    unit: str = PERCENT
    """"%" for shares, which tables and plots show times 100; any other unit, or none, for numbers shown as they are."""
    digits: int = 2
    """After the decimal point in tables."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise InputError(f"A metric's column needs a name such as 'top_share', not {self.name!r}.")
        if self.better not in get_args(Better):
            raise InputError(f"better={self.better!r} is not known; use one of {', '.join(get_args(Better))}.")
        for field_name, default in (("label", self.name), ("title", self.label or self.name)):
            if not getattr(self, field_name):
                object.__setattr__(self, field_name, default)

    @property
    def factor(self) -> float:
        """What a row's value is multiplied by where it is shown."""
        return 100 if self.unit == PERCENT else 1

    @property
    def title_with_unit(self) -> str:
        """For an axis: "insertion - deletion (%)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def with_error(self, value: float | None, error: float | None, sign: str = "") -> str:
        """A number that is shown with its standard error, with the column's digits; empty for none and NaN.

        Args:
            value: In the column's unit.
            error: Likewise.
            sign: "+" to show the sign of positive numbers too.
        """
        if value is None or error is None or math.isnan(value):
            return ""
        shown = round(value, self.digits) + 0.0  # not "-0.00"
        return f"{shown:{sign}.{self.digits}f} ± {error:.{self.digits}f}"


def units(columns: Iterable[MetricColumn]) -> str:
    """What numbers of the columns are in: "In percent", or "In percent, Entropy in bits"."""
    texts = ["In percent"]
    for column in columns:
        if column.unit != PERCENT:
            texts.append(f"{column.label} in {column.unit}" if column.unit else f"{column.label} as a plain number")
    return ", ".join(texts)


@dataclass(frozen=True, eq=False)
class MetricInput:
    """One map and what a metric may read beside it."""

    model: HookedModel
    image: Float[Tensor, "1 3 height width"]
    """The image as the model's input."""
    map: AttributionMap
    mask: Mask | None = None
    """The object's pixels as the model sees them; None for metrics without `needs_masks`."""
    ignored: Mask | None = None
    """Pixels that count neither for the object nor for the rest, where the data set marks such."""
    protocol: CurveProtocol | None = None
    """Of the run's curves; None for metrics without `reads_protocol`."""
    batch_size: int = 64
    """Images to run at once; it must not change results."""


Compute = Callable[..., Mapping[str, Any]]
"""(MetricInput, **options) -> a value for each column and each of the details. Keyword-only parameters are options.

NaN stands for no value, and such images are left out of means.
"""


@dataclass(frozen=True)
class Metric:
    """A metric: one computation that gives one or more numbers of each map."""

    name: str
    """What users call it, as in `cl.benchmark(metrics=["localisation"])`."""
    columns: tuple[MetricColumn, ...]
    compute: Compute
    needs_masks: bool = False
    """It reads the object's mask."""
    reads_protocol: bool = False
    """It reads the run's curve protocol, which then decides its numbers."""
    default: bool = False
    """Benchmarks and sweeps compute it where no metrics are chosen: with masks only, if it needs them."""
    details: Mapping[str, Literal["number", "numbers"]] = field(default_factory=dict)
    """Further columns of rows, which no table shows: curves, say."""

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of its own options."""
        parameters = inspect.signature(self.compute).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that it does not have.

        Raises:
            InputError: says which, and which there are.
        """
        known = list(self.options)
        for name in options:
            if name not in known:
                has = f"Its options are {', '.join(known)}." if known else "It has none."
                raise InputError(f"The metric {self.name} has no option {name!r}.{nearest(name, known)} {has}")

    def values(self, given: MetricInput, options: Mapping[str, Any]) -> dict[str, Any]:
        """Its columns and details for one map.

        Raises:
            InputError: it does not return one number for each of its columns; others come from what it computes.
        """
        result = self.compute(given, **options)
        wanted = [*(column.name for column in self.columns), *self.details]
        if not isinstance(result, Mapping) or sorted(map(str, result)) != sorted(wanted):
            got = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise InputError(f"The metric {self.name} must return a dict with {', '.join(wanted)}; it returned {got}.")
        return {name: self._checked(name, value) for name, value in result.items()}

    def _checked(self, name: str, value: Any) -> float | list[float]:
        try:
            if self.details.get(name) == "numbers":
                return [float(number) for number in value]
            number = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"The metric {self.name} must return numbers; {name} is {value!r}.") from error
        if np.isinf(number):
            raise InputError(f"The metric {self.name} gives {name} = {number}, of which no mean can be taken.")
        return number
