"""Our numbers next to the paper's: differences in standard errors, and a summary of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from scipy.stats import rankdata

from caap_lab.bench.paper.published import Published, published
from caap_lab.metrics.metric import MetricColumn

if TYPE_CHECKING:
    import pandas as pd

LEGEND = (
    "z is ours minus the paper's number, in standard errors of that difference: between -2 and +2 in about 95 of 100 "
    "cells if only the choice of images differs."
)
FAR = 2.0
"""Number of standard errors beyond which a difference is named."""
_NAMED = 3
"""Number of the largest differences that are named."""
_RANKED = 3
"""Minimum number of methods for a meaningful rank correlation."""


def with_published(
    summary: "pd.DataFrame", tables: Sequence[int], columns: Mapping[str, MetricColumn]
) -> "pd.DataFrame":
    """A summary's lines with the paper's numbers next to them.

    Args:
        summary: `BenchmarkResult.summary`.
        tables: Number of the paper's table, by study.
        columns: Labels of the metrics.

    Returns:
        With published, published_se, minus_published and z; NaN if the paper prints no number. z is also NaN for one
        image, which has no standard error.
    """
    known = {(p.table, p.dataset, p.model, p.method, p.metric): p for p in published()}
    found = [
        known.get((tables[line.study], line.data, line.model, line.method, columns[line.metric].label))
        for line in summary.itertuples()
    ]
    return beside(summary, found)


def beside(summary: "pd.DataFrame", found: "Sequence[Published | None]") -> "pd.DataFrame":
    """A table of means with the paper's number of each line, as `with_published` returns it.

    Args:
        summary: One row per mean: mean, se, n.
        found: The paper's number of each row, or None.
    """
    summary = summary.assign(
        published=[math.nan if p is None else p.value for p in found],
        published_se=[math.nan if p is None else p.standard_error for p in found],
    )
    difference = summary["mean"] - summary["published"]
    error = (summary["se"] ** 2 + summary["published_se"] ** 2) ** 0.5
    z = difference / error.where((error > 0) & (summary["n"] > 1))
    return summary.assign(minus_published=difference, z=z)


def agreement(frame: "pd.DataFrame", columns: Mapping[str, MetricColumn]) -> tuple[str, ...]:
    """The agreement of a table with the paper's, in sentences: cells within 2 errors, the farthest, ranks of methods.

    Args:
        frame: `Table.frame` of the paper profile.
        columns: Labels of the metrics.
    """
    told = frame[frame["z"].notna()]
    if told.empty:
        return ("No cell can be set against the paper's in standard errors: that takes at least 2 images.",)
    several = frame["data"].nunique() > 1
    near = int((told["z"].abs() <= FAR).sum())
    sentences = [f"{near} of {len(told)} cells lie within {FAR:g} standard errors of the paper's numbers."]
    order = told["z"].abs().sort_values(ascending=False, kind="stable").index
    far = told.loc[order].head(min(_NAMED, len(told) - near) or 1)
    texts = []
    for line in far.itertuples():
        shown = columns[line.metric]
        where = f"{line.data}, {line.model}" if several else line.model
        ours, paper = (f"{value:.{shown.digits}f}" for value in (line.mean, line.published))
        texts.append(f"{line.method} of {where}, {shown.label} {ours} against {paper} (z {line.z:+.2f})")
    sentences.append(f"The farthest: {'; '.join(texts)}.")
    return (*sentences, *_ranks(frame, columns, several))


def _ranks(frame: "pd.DataFrame", columns: Mapping[str, MetricColumn], several: bool) -> list[str]:
    """Spearman's correlation of our means with the paper's over methods, for each column."""
    both = frame[frame["published"].notna()]
    groups = []
    for (data, model), part in both.groupby(["data", "model"], sort=False):
        texts = []
        for metric, lines in part.groupby("metric", sort=False):
            value = rank_correlation(lines["mean"], lines["published"])
            if not math.isnan(value):
                texts.append(f"{columns[metric].label} {value:.2f}")
        if texts:
            groups.append(f"{f'{data}, {model}' if several else model}: {', '.join(texts)}")
    return [f"Rank correlation of the methods with the paper's (Spearman): {'; '.join(groups)}."] if groups else []


def rank_correlation(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Spearman's correlation; NaN for fewer than 3 pairs, and if all values of one side are equal."""
    a, b = rankdata(list(ours)), rankdata(list(theirs))
    if len(a) < _RANKED or not a.std() or not b.std():
        return math.nan
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


def comparison(frames: Mapping[int, "pd.DataFrame"], columns: Mapping[str, MetricColumn]) -> "pd.DataFrame":
    """Every number that some of the paper's tables print, and ours.

    Args:
        frames: Each table's frame, by its number.
        columns: Labels of the metrics.

    Returns:
        table, dataset, model, method, metric, ours, se, n, published, published_se, difference, z. Numbers of the paper
        that were not computed have no `ours`, and n is 0.
    """
    import pandas as pd

    ours = {
        (number, line.data, line.model, line.method, columns[line.metric].label): line
        for number, frame in frames.items()
        for line in frame.itertuples()
    }
    rows = []
    for paper in published():
        if paper.table not in frames:
            continue
        line = ours.get(_place(paper))
        numbers = (math.nan, math.nan, 0) if line is None else (line.mean, line.se, line.n)
        gap = (math.nan, math.nan) if line is None else (line.minus_published, line.z)
        rows.append((*_place(paper), *numbers, paper.value, paper.standard_error, *gap))
    names = ["table", "dataset", "model", "method", "metric", "ours", "se", "n", "published", "published_se"]
    return pd.DataFrame(rows, columns=[*names, "difference", "z"])


def _place(paper: Published) -> tuple[int, str, str, str, str]:
    return (paper.table, paper.dataset, paper.model, paper.method, paper.metric)
