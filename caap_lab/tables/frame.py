"""Data frames with readable HTML for Jupyter: no column is cut, no cell breaks, and missing values are explained."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from caap_lab.escaping import for_html
from caap_lab.tables.html import html_table

_LONGEST = 48
"""Number of characters displayed in a cell; longer text is cut."""


class Frame(pd.DataFrame):
    """A data frame with readable HTML: rounded numbers, cells of one line, and all columns.

    Values are pandas' own, NaN if there is none; in its HTML such a cell is empty, or contains its meaning.
    """

    _metadata: ClassVar = ["_said"]  # copied by pandas to frames that it derives
    _said: Mapping[str, str] = MappingProxyType({})

    @property
    def _constructor(self) -> Callable[..., "Frame"]:
        return Frame

    def saying(self, **missing: str) -> "Frame":
        """The same frame with the meaning of a missing value in some columns: `saying(difference="default")`."""
        self._said = missing
        return self

    def _repr_html_(self) -> str:
        most, few = pd.get_option("display.max_rows"), pd.get_option("display.min_rows")
        half = max(1, (few or most or 10) // 2)
        cut = bool(most) and len(self) > most
        shown = pd.concat([self.iloc[:half], self.iloc[-half:]]) if cut else self
        plain_index = isinstance(self.index, pd.RangeIndex) and self.index.name is None
        heads = [_name(name) for name in self.columns]
        columns = [self._cells(shown, place) for place in range(len(heads))]
        rows = [list(row) for row in zip(*columns, strict=True)]
        texts = [not pd.api.types.is_numeric_dtype(dtype) for dtype in self.dtypes]
        if not plain_index or not heads:
            levels = [shown.index.get_level_values(level) for level in range(self.index.nlevels)]
            heads = ["" if name is None else str(name) for name in self.index.names] + heads
            texts = [True] * len(levels) + texts
            labels = [[for_html(_text(label)) for label in row] for row in zip(*levels, strict=True)]
            rows = [[*label, *row] for label, row in zip(labels, rows, strict=True)] if rows else labels
        if cut:
            rows.insert(half, ["⋮"] * len(heads))
        caption = f"{len(self)} rows, of which the first and the last {half} are shown" if cut else ""
        return html_table(
            heads, rows, caption=caption, text_columns={place for place, is_text in enumerate(texts) if is_text}
        )

    def _cells(self, shown: pd.DataFrame, place: int) -> list[str]:
        column = shown.iloc[:, place]
        instead = self._said.get(str(self.columns[place]), "")
        if pd.api.types.is_float_dtype(column.dtype):
            whole = self.iloc[:, place].to_numpy(float)
            digits = _digits(whole)
            return [instead if np.isnan(value) else _number(value, digits) for value in column.to_numpy(float)]
        return [for_html(_text(value)) if _is_there(value) else instead for value in column]


def _name(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _is_there(value: Any) -> bool:
    return not (value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)))


def _digits(values: np.ndarray) -> int | None:
    """Digits after the decimal point that show about four of the largest value; None if an exponent is needed."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or not sizes.any():
        return 0
    largest = sizes.max()
    if largest >= 1e7 or largest < 1e-3:
        return None
    if (sizes == np.rint(sizes)).all():
        return 0
    return int(np.clip(3 - np.floor(np.log10(largest)), 2, 6))


def _number(value: float, digits: int | None) -> str:
    if digits is None:
        return f"{value:.3g}"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        text = "[" + ", ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in value) + "]"
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
