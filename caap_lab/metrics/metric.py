"""Metrics of maps: the numbers that they return, their names, and the functions that compute them."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """One number per map that a metric returns: a column of rows, tables and plots."""

    name: str
    """Name of the column in rows: "insdel"."""
    label: str = ""
    """Head of the column in tables: "InsDel"; by default the name."""
    title: str = ""
    """Title on axes and in menus: "insertion - deletion"; by default the label."""
    better: Better = "higher"
    """Which values are better."""
    unit: str = PERCENT
    """"%" for fractions, which tables and plots multiply by 100; any other unit, or none, for numbers shown
    unchanged."""
    digits: int = 2
    """Number of decimals in tables."""

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
        """The factor by which a row's value is multiplied for display."""
        return 100 if self.unit == PERCENT else 1

    @property
    def title_with_unit(self) -> str:
        """The title for an axis: "insertion - deletion (%)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def with_error(self, value: float | None, error: float | None, sign: str = "") -> str:
        """A number with its standard error as text, with the column's digits; empty for None and NaN.

        A standard error of NaN, as for one image, is left out.

        Args:
            value: The number, in the column's unit.
            error: Its standard error, in the same unit.
            sign: "+" to show the sign of positive numbers too.
        """
        if value is None or error is None or math.isnan(value):
            return ""
        shown = round(value, self.digits) + 0.0  # not "-0.00"
        text = f"{shown:{sign}.{self.digits}f}"
        return text if math.isnan(error) else f"{text} ± {error:.{self.digits}f}"


def units(columns: Iterable[MetricColumn]) -> str:
    """The units of the columns as text: "In percent", or "In percent, Entropy in bits"."""
    texts = ["In percent"]
    for column in columns:
        if column.unit != PERCENT:
            texts.append(f"{column.label} in {column.unit}" if column.unit else f"{column.label} as a plain number")
    return ", ".join(texts)


@dataclass(frozen=True, eq=False)
class MetricInput:
    """One map and everything that a metric may read with it."""

    model: HookedModel
    image: Float[Tensor, "1 3 height width"]
    """The image as the model's input."""
    map: AttributionMap
    mask: Mask | None = None
    """The object's pixels as the model sees them; None for metrics without `needs_masks`."""
    ignored: Mask | None = None
    """Pixels that count neither for the object nor for the rest, if the data set marks some."""
    protocol: CurveProtocol | None = None
    """Protocol of the run's curves; None for metrics without `reads_protocol`."""
    batch_size: int = 64
    """Images to run at once; it must not change results."""


Compute = Callable[..., Mapping[str, Any]]
"""(MetricInput, **options) -> a value for each column and each of the details. Keyword-only parameters are options.

NaN means no value, and such images are left out of means.
"""
ComputeAll = Callable[..., Iterator[tuple[Mapping[str, Any], float]]]
"""(iterable of MetricInput, **options) -> for each input, in order, what `Compute` returns and the seconds it took.

Inputs are taken one by one, when there is room for them in a batch.
"""


@dataclass(frozen=True)
class Metric:
    """A metric: one computation that returns one or more numbers per map."""

    name: str
    """Name of the metric, as in `cl.benchmark(metrics=["localisation"])`."""
    columns: tuple[MetricColumn, ...]
    compute: Compute
    needs_masks: bool = False
    """Whether it reads the object's mask."""
    reads_protocol: bool = False
    """Whether it reads the run's curve protocol, on which its numbers then depend."""
    default: bool = False
    """Whether benchmarks and sweeps compute it if no metrics are chosen; only with masks, if it needs them."""
    details: Mapping[str, Literal["number", "numbers"]] = field(default_factory=dict)
    """Further columns of rows that tables do not show, such as curves."""
    compute_all: ComputeAll | None = None
    """The same for several maps of one model, which share batches."""

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of its own options."""
        parameters = inspect.signature(self.compute).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise InputError for options that it does not have.

        Raises:
            InputError: the message gives the unknown option and the known ones.
        """
        known = list(self.options)
        for name in options:
            if name not in known:
                has = f"Its options are {', '.join(known)}." if known else "It has none."
                raise InputError(f"The metric {self.name} has no option {name!r}.{nearest(name, known)} {has}")

    def values(self, given: MetricInput, options: Mapping[str, Any]) -> dict[str, Any]:
        """Its columns and details for one map.

        Raises:
            InputError: it does not return one number per column; or raised by its computation.
        """
        return self.checked(self.compute(given, **options))

    def checked(self, result: Any) -> dict[str, Any]:
        """What a computation returned, as numbers.

        Raises:
            InputError: it is not one number per column.
        """
        wanted = [*(column.name for column in self.columns), *self.details]
        if not isinstance(result, Mapping) or sorted(map(str, result)) != sorted(wanted):
            got = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise InputError(f"The metric {self.name} must return a dict with {', '.join(wanted)}; it returned {got}.")
        return {name: self._number(name, value) for name, value in result.items()}

    def _number(self, name: str, value: Any) -> float | list[float]:
        try:
            if self.details.get(name) == "numbers":
                return [float(number) for number in value]
            number = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"The metric {self.name} must return numbers; {name} is {value!r}.") from error
        if np.isinf(number):
            raise InputError(f"The metric {self.name} returned {name} = {number}, which cannot be averaged.")
        return number
