"""All metrics of maps by name: those of this package, one per file, and those that users register."""

from collections.abc import Sequence

from caap_lab.attribution.registry import fingerprint_of
from caap_lab.digests.code import code_digest
from caap_lab.errors import InputError
from caap_lab.metrics.localisation import LOCALISATION
from caap_lab.metrics.metric import Compute, Metric, MetricColumn
from caap_lab.metrics.perturbation import FAITHFULNESS
from caap_lab.metrics.saco import SACO
from caap_lab.models.names import nearest
from caap_lab.variant import Variant, parse_variant

BUILT_IN: tuple[Metric, ...] = (FAITHFULNESS, LOCALISATION, SACO)
METRICS: dict[str, Metric] = {metric.name: metric for metric in BUILT_IN}
"""Metrics by name; `register_metric` adds to it."""


def register_metric(
    name: str,
    compute: Compute,
    columns: Sequence[MetricColumn],
    *,
    needs_masks: bool = False,
    reads_protocol: bool = False,
) -> None:
    """Register your own function as a metric, for `cl.benchmark(metrics=["mine"])` and sweeps.

    ```python
    columns = [cl.MetricColumn("highest", unit="")]
    cl.register_metric("highest", lambda given: {"highest": given.map.scores.max().item()}, columns)
    cl.sweep_cutoffs(model, images, cutoffs=[3], metrics=["highest"]).summary()
    ```

    Args:
        name: Name of the metric; your own names may be registered again, built-in ones may not.
        compute: (given, **options) -> {column: number}; `given` is a `MetricInput` with the model, the image, the map
            and more. NaN means no value. Keyword-only parameters become the metric's options.
        columns: The numbers that it returns: name, label, title, which values are better, unit and digits.
        needs_masks: Whether it reads the object's mask, `given.mask` and `given.ignored`; images without one fail.
        reads_protocol: Whether it reads the run's curve protocol, `given.protocol`.

    Raises:
        InputError: the name belongs to a built-in metric, or a column to another metric.
    """
    if not isinstance(name, str) or not name or parse_variant(name).name != name:
        raise InputError(f"A metric needs a name such as 'sparsity', not {name!r}.")
    if not callable(compute):
        raise InputError(f"A metric is a function (given) -> {{column: number}}, not {type(compute).__name__}.")
    if any(name == metric.name for metric in BUILT_IN):
        raise InputError(f"{name!r} is a built-in metric; register yours under another name.")
    own = tuple(columns) if isinstance(columns, Sequence) else ()
    if not own or not all(isinstance(column, MetricColumn) for column in own):
        raise InputError("A metric has one or more columns: columns=[cl.MetricColumn('top_share', better='higher')].")
    names = [column.name for column in own]
    taken = {other: metric.name for metric in METRICS.values() if metric.name != name for other in _all_columns(metric)}
    for column in names:
        if column in taken or names.count(column) > 1:
            where = f"the metric {taken[column]!r} has one of that name" if column in taken else "it is given twice"
            raise InputError(f"The column {column!r} needs another name: {where}.")
    METRICS[name] = Metric(name, own, compute, needs_masks, reads_protocol)


def metric_named(name: str) -> Metric:
    """A metric by name.

    Raises:
        InputError: there is none with this name.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise InputError(
            f"metrics={name!r} is not known; use {' or '.join(METRICS)}, or several of them."
            f"{nearest(str(name), list(METRICS))} cl.register_metric registers your own."
        )
    return METRICS[name]


def parse_metric(text: str) -> tuple[Metric, Variant]:
    """A metric and its options from text such as "localisation" or "localisation:tolerance=15".

    Raises:
        InputError: there is no such metric, or it has no such option.
    """
    if not isinstance(text, str):
        raise InputError(f"metrics={text!r} is not known; use the name of a metric, such as 'faithfulness'.")
    variant = parse_variant(text)
    chosen = metric_named(variant.name)
    chosen.check_options(variant.options)
    return chosen, variant


def default_metrics(has_masks: bool) -> tuple[str, ...]:
    """Names of the metrics that are computed if none are chosen."""
    return tuple(metric.name for metric in BUILT_IN if metric.default and (has_masks or not metric.needs_masks))


def metric_column(name: str) -> MetricColumn:
    """A column by name, from any metric.

    Raises:
        InputError: no metric has such a column.
    """
    columns = {column.name: column for metric in METRICS.values() for column in metric.columns}
    if name not in columns:
        raise InputError(f"No metric has a column {name!r}.{nearest(name, list(columns))}")
    return columns[name]


def metric_digest(name: str) -> str:
    """Hash of the current code of a user's own metric; empty for a built-in one.

    Raises:
        InputError: the metric depends on an object whose content cannot be hashed.
    """
    chosen = metric_named(name)
    if chosen in BUILT_IN:
        return ""
    code = code_digest(chosen.compute, f"The metric {name!r}", identity=fingerprint_of)
    return code + (" with masks" if chosen.needs_masks else "")


def _all_columns(metric: Metric) -> list[str]:
    return [*(column.name for column in metric.columns), *metric.details]
