"""Methods of a benchmark compared over their common images: paired differences, and ranks."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from caap_lab.bench.target_rule import rule_text
from caap_lab.errors import InputError
from caap_lab.metrics.metric import MetricColumn
from caap_lab.models.names import nearest
from caap_lab.statistics import holm, paired_statistics, rank_rows, sign_flip_p, standard_error
from caap_lab.variant import Variant

if TYPE_CHECKING:
    import pandas as pd

    from caap_lab.bench.result import BenchmarkResult

LEVEL = 0.05
"""With a corrected p-value below it, methods are called better or worse."""


class Comparison(NamedTuple):
    """The values of all methods for one metric, model and data set, which are compared with each other."""

    study: int
    """Number of the first study with the model."""
    data: str
    model: str
    column: MetricColumn
    values: "pd.DataFrame"
    """One row per image, one column per method, by their labels; NaN if there is no value."""


def comparisons(result: "BenchmarkResult", methods: Sequence[str] | None = None) -> Iterator[Comparison]:
    """Each model, data set and metric of a result, over all studies with the same target on the same images.

    Args:
        result: A result, finished or not.
        methods: Labels of the methods to compare; all by default.

    Raises:
        InputError: there is no such method, or one label belongs to two methods or models.
    """
    chosen = _all_labels(result) if methods is None else _known(methods, _all_labels(result))
    frame = result.to_dataframe()
    frame = frame[frame["error"].isna()]
    for members in _alike(result).values():
        studies = [result.plan.studies[number] for number in members]
        own = _unambiguous("method", [method for study in studies for method in study.methods])
        models = _unambiguous("model", [model for study in studies for model in study.models])
        images = list(dict.fromkeys(name for study in studies for name in study.data.names))
        columns = {column.name: column for study in studies for column in result.plan.columns(study)}
        part = frame[frame["study"].isin(members)]
        for model in models:
            first = next(n for n in members if model in [one.label for one in result.plan.studies[n].models])
            rows = part[part["model"] == model]
            for column in columns.values():
                given = rows.dropna(subset=[column.name]).drop_duplicates(["image", "method"])
                table = given.pivot(index="image", columns="method", values=column.name)
                table = table.reindex(index=images, columns=[label for label in chosen if label in own]).astype(float)
                yield Comparison(first, studies[0].data.label, model, column, table)


def compared(result: "BenchmarkResult", to: str, methods: Sequence[str] | None) -> "pd.DataFrame":
    """The return value of `BenchmarkResult.compare`."""
    import pandas as pd

    from caap_lab.tables.frame import Frame

    known = labels_of(result, to)
    if not known:
        labels = _all_labels(result)
        raise InputError(
            f"to={to!r} is no method of this result; it has {', '.join(labels)}.{nearest(str(to), labels)}"
        )
    wanted = None if methods is None else [*_known(methods, _all_labels(result)), known[0]]
    lines = []
    for one in comparisons(result, wanted):
        reference = next((label for label in known if label in one.values), None)
        if reference is None:
            continue
        others = one.values.drop(columns=[label for label in labels_of(result, reference) if label in one.values])
        paired = one.column.factor * (others.to_numpy() - one.values[[reference]].to_numpy())
        p = _p_values(paired)
        corrected = holm(p)
        for place, method in enumerate(others):
            numbers = paired_statistics(paired[:, place], factor=1)
            lines.append(
                {
                    "study": one.study,
                    "data": one.data,
                    "model": one.model,
                    "metric": one.column.name,
                    "method": method,
                    "to": reference,
                    "n": numbers["n"],
                    "difference": numbers["mean"],
                    "se": numbers["se"],
                    "p": p[place],
                    "p_holm": corrected[place],
                    "verdict": _verdict(numbers["mean"], corrected[place], one.column),
                }
            )
    columns = ["study", "data", "model", "metric", "method", "to", "n", "difference", "se", "p", "p_holm", "verdict"]
    return Frame(pd.DataFrame(lines, columns=columns)).saying(p="no common images", p_holm="no common images")


def ranks(result: "BenchmarkResult", methods: Sequence[str] | None) -> "pd.DataFrame":
    """The return value of `BenchmarkResult.ranks`."""
    import pandas as pd

    from caap_lab.tables.frame import Frame

    tables = [
        ranked(one).assign(study=one.study, data=one.data, model=one.model) for one in comparisons(result, methods)
    ]
    columns = ["study", "data", "model", "metric", "method", "n", "mean_rank", "se"]
    table = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    return Frame(table).saying(mean_rank="no value yet")


def ranked(one: Comparison) -> "pd.DataFrame":
    """Mean ranks of one metric's methods, the best one first; methods without any value are last."""
    import pandas as pd

    present = one.values.dropna(axis=1, how="all")
    whole = present.dropna().to_numpy()
    placed = rank_rows(whole, lowest_first=one.column.better == "lower") if len(whole) else whole
    means = placed.mean(0) if len(placed) else np.full(whole.shape[1], np.nan)
    table = pd.DataFrame({"method": list(present), "n": len(whole), "mean_rank": means, "se": standard_error(placed)})
    absent = [method for method in one.values if method not in present]
    missing = pd.DataFrame({"method": absent, "n": 0, "mean_rank": np.nan, "se": np.nan})
    table = pd.concat([table, missing], ignore_index=True) if absent else table
    return table.sort_values("mean_rank", kind="stable", ignore_index=True).assign(metric=one.column.name)


def one_comparison(
    result: "BenchmarkResult", metric: str, data: str | None, model: str | None, methods: Sequence[str] | None
) -> Comparison:
    """The comparison of one metric, model and data set.

    Raises:
        InputError: there is no such name, or there are several and none was chosen.
    """
    found = list(comparisons(result, methods))
    for what, value in (("metric", metric), ("data", data), ("model", model)):
        there = {_label(one, what): None for one in found}
        if value is None and len(there) > 1:
            raise InputError(f"This result has several for {what}; choose {what}= one of {', '.join(there)}.")
        if value is not None and value not in there:
            raise InputError(f"{what}={value!r} is not in this result; it has {', '.join(there)}.")
        found = [one for one in found if value in (None, _label(one, what))]
    if len(found) > 1:
        raise InputError(
            "Studies of this result explain different things of the same images; open their runs one by one."
        )
    return found[0]


def _label(one: Comparison, what: str) -> str:
    return one.column.name if what == "metric" else one.data if what == "data" else one.model


def _p_values(paired: Float[np.ndarray, "image method"]) -> Float[np.ndarray, " method"]:
    """p-values of each method over its images; NaN without any."""
    p = np.full(paired.shape[1], np.nan)
    there = np.isfinite(paired)
    for pattern in np.unique(there.T, axis=0):
        if pattern.any():
            same = (pattern == there.T).all(axis=1)
            p[same] = sign_flip_p(paired[pattern][:, same])
    return p


def _verdict(difference: float, p: float, column: MetricColumn) -> str:
    if np.isnan(p):
        return "no common images"
    if p >= LEVEL:
        return "not distinguishable"
    return "better" if (difference > 0) == (column.better == "higher") else "worse"


def labels_of(result: "BenchmarkResult", to: str) -> list[str]:
    """Labels that a text may refer to, in order: the label itself, otherwise those of the method of that name."""
    methods = [method for study in result.plan.studies for method in study.methods]
    same = {method.text for method in methods if method.label == to}
    if same:  # a joined run may have it under another label
        return list(dict.fromkeys([to, *(method.label for method in methods if method.text in same)]))
    return list(dict.fromkeys(method.label for method in methods if method.name == to))


def _all_labels(result: "BenchmarkResult") -> list[str]:
    return list(dict.fromkeys(method.label for study in result.plan.studies for method in study.methods))


def _known(methods: Sequence[str], labels: list[str]) -> list[str]:
    if isinstance(methods, str):
        methods = [methods]
    if not methods:
        raise InputError(f"No methods were chosen; this result has {', '.join(labels)}.")
    for label in methods:
        if label not in labels:
            raise InputError(
                f"methods={label!r} is not in this result; it has {', '.join(labels)}.{nearest(str(label), labels)}"
            )
    return list(dict.fromkeys(methods))


def _alike(result: "BenchmarkResult") -> dict[tuple[str, ...], list[int]]:
    """Indices of studies whose rows are comparable: same images, target and options of metrics."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, study in enumerate(result.plan.studies):
        key = (study.data.source, study.data.label, rule_text(study.target), *sorted(study.metrics))
        groups.setdefault(key, []).append(number)
    return groups


def _unambiguous(what: str, variants: Sequence[Variant]) -> dict[str, str]:
    """Names of methods or models by label.

    Raises:
        InputError: a label belongs to two of them.
    """
    texts: dict[str, str] = {}
    for one in variants:
        if texts.setdefault(one.label, one.text) != one.text:
            raise InputError(
                f"{one.label!r} stands for two {what}s in this result, {texts[one.label]} and {one.text}: give one of "
                f"them another label, as in 'LABEL={one.text}'."
            )
    return {one.label: one.name for one in variants}
