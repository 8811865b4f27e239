"""Cells of a benchmark's table as text: numbers with errors, the best of each column, and the number of images.

Markdown, LaTeX and HTML are built from these, so that all of them agree.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from caap_lab.metrics.metric import MetricColumn

if TYPE_CHECKING:
    import pandas as pd

Group = tuple[str, str]
"""Data set and model."""
Column = tuple[str, str, str]
"""Data set, model and metric."""
Kind = Literal["mean", "published", "z", "difference"]
_NUMBERS: dict[Kind, tuple[str, str, str]] = {
    "mean": ("mean", "se", ""),
    "published": ("published", "published_se", ""),
    "difference": ("difference", "difference_se", "+"),
}
"""Columns of a table's frame with a number and its standard error, and whether positive ones show their sign."""


@dataclass(frozen=True, eq=False)
class Cells:
    """A table's cells by data set, model, metric and method."""

    frame: "pd.DataFrame"
    """`Table.frame`."""
    columns: Mapping[str, MetricColumn]
    """Labels of the metrics, which values are better, and their units, by the frame's column `metric`."""
    usual: Mapping[str, int] = field(default_factory=dict)
    """Expected number of images, by data set: that of the paper. By default the number in most cells of the table."""

    @cached_property
    def _lines(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        return {
            (line["data"], line["model"], line["metric"], line["method"]): line
            for line in self.frame.to_dict("records")
        }

    @cached_property
    def groups(self) -> list[Group]:
        """Data sets and models, in order."""
        return list(dict.fromkeys(zip(self.frame["data"], self.frame["model"], strict=True)))

    def metrics(self, group: Group) -> list[str]:
        """A group's metrics, in order."""
        return self._metrics[group]

    @cached_property
    def _metrics(self) -> dict[Group, list[str]]:
        found: dict[Group, dict[str, None]] = {}
        for data, model, metric, _ in self._lines:
            found.setdefault((data, model), {})[metric] = None
        return {group: list(metrics) for group, metrics in found.items()}

    @cached_property
    def methods(self) -> list[str]:
        """All methods, in order."""
        return list(dict.fromkeys(self.frame["method"]))

    @property
    def beside_published(self) -> bool:
        """True if there are published numbers to compare with."""
        return "published" in self.frame

    @cached_property
    def common(self) -> int:
        """Number of images behind most cells."""
        return max(Counter(self.frame["n"].tolist()).items(), key=itemgetter(1), default=(0, 0))[0]

    @property
    def counts_differ(self) -> bool:
        """True if the number of images is not the same for all cells."""
        return self.frame["n"].nunique() > 1

    def images(self, group: Group) -> int:
        """Number of images behind the most complete cell of a group."""
        return self._images[group]

    @cached_property
    def _images(self) -> dict[Group, int]:
        found: dict[Group, int] = {}
        for (data, model, _, _), line in self._lines.items():
            found[data, model] = max(line["n"], found.get((data, model), 0))
        return found

    def name(self, group: Group) -> str:
        """A group's model, with its data set if there are several."""
        return ", ".join(group) if len({data for data, _ in self.groups}) > 1 else group[1]

    def head(self, group: Group) -> str:
        """A group's name, with its number of images if that is not the usual one."""
        n = self.images(group)
        return self.name(group) if n == self.usual.get(group[0], self.common) else f"{self.name(group)} (n {n})"

    def row_head(self, group: Group, method: str) -> str:
        """A method, with its number of images in a group if it is the same for all its means but larger for others."""
        n = self._row_images(group, method)
        return method if n is None else f"{method} (n {n})"

    def _row_images(self, group: Group, method: str) -> int | None:
        lines = [self._lines.get((*group, metric, method)) for metric in self.metrics(group)]
        found = {line["n"] for line in lines if line is not None}
        return found.pop() if len(found) == 1 and found != {self.images(group)} else None

    def text(self, kind: Kind, column: Column, method: str, below_row_head: bool = False) -> str:
        """A cell; empty if there is no such number. Means include their number of images if others have more.

        Args:
            kind: The number that it shows.
            column: Column of the table.
            method: Row of the table.
            below_row_head: Omit what `row_head` contains.
        """
        line = self._lines.get((*column, method))
        if line is None:
            return ""
        if kind == "z":
            return "" if line["z"] != line["z"] else f"{round(line['z'], 1) + 0.0:+.1f}"
        value, error, sign = _NUMBERS[kind]
        text = self.columns[column[2]].with_error(line[value], line[error], sign)
        fewer = kind == "mean" and line["n"] != self.images(column[:2])
        if below_row_head and self._row_images(column[:2], method) is not None:
            fewer = False
        return f"{text} (n {line['n']})" if fewer and text else text

    def is_best(self, column: Column, method: str) -> bool:
        """True for the best mean of a column, and for means that are printed the same.

        Only methods on the most images of the column are compared: on other images all of them may be better or worse.
        """
        line = self._lines.get((*column, method))
        return line is not None and line["n"] == self._best[column][0] and self._printed(line) == self._best[column][1]

    @cached_property
    def _best(self) -> dict[Column, tuple[int, float | None]]:
        """Number of images and the best printed mean of each column; None if there is nothing to compare."""
        lines: dict[Column, list[dict[str, Any]]] = {}
        for (data, model, metric, _), line in self._lines.items():
            lines.setdefault((data, model, metric), []).append(line)
        best: dict[Column, tuple[int, float | None]] = {}
        for column, found in lines.items():
            n = max(line["n"] for line in found)
            means = [self._printed(line) for line in found if line["n"] == n]
            choose = min if self.columns[column[2]].better == "lower" else max
            best[column] = (n, choose(means) if len(means) > 1 else None)
        return best

    def _printed(self, line: Mapping[str, Any]) -> float:
        return round(line["mean"], self.columns[line["metric"]].digits)
