"""The catalogue of metrics: what it covers, and which metrics of one's own it takes."""

from collections.abc import Iterator
from dataclasses import fields

import pyarrow as pa
import pytest

import caap_lab as cl
from caap_lab.bench.paper.published import METRICS as PAPER_METRICS
from caap_lab.bench.paper.published import published
from caap_lab.bench.plan import Study
from caap_lab.bench.run_folder import SCHEMA
from caap_lab.metrics.catalogue import BUILT_IN, METRICS, default_metrics, metric_column, metric_digest, parse_metric
from caap_lab.metrics.localisation import LOCALISATION, Localisation
from caap_lab.metrics.metric import MetricColumn, units

TIMES = {"map_seconds", "seconds"}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Metrics that a test registers go with it."""
    yield
    for name in set(METRICS) - {metric.name for metric in BUILT_IN}:
        del METRICS[name]


def test_it_covers_every_number_of_a_run_folder() -> None:
    columns = {column.name for metric in BUILT_IN for column in metric.columns}
    details = {name for metric in BUILT_IN for name in metric.details}
    numbers = {field.name for field in SCHEMA if field.type in (pa.float64(), pa.list_(pa.float64()))}
    assert columns | details == numbers - TIMES and not columns & details
    assert {"insdel", "pooled_ap"} <= columns
    found = {field.name for field in fields(Localisation)} - {"upsampling", "tolerance"}
    assert found == {*(column.name for column in LOCALISATION.columns), *LOCALISATION.details}


def test_known_and_default_metrics_are_two_things() -> None:
    assert default_metrics(has_masks=False) == ("faithfulness",)
    assert default_metrics(has_masks=True) == ("faithfulness", "localisation")
    cl.register_metric("spread", lambda given: {"spread": 0.0}, [MetricColumn("spread")])
    assert "spread" in METRICS and default_metrics(has_masks=True) == ("faithfulness", "localisation")
    assert Study.__dataclass_fields__["metrics"].default == ("faithfulness", "localisation")


def test_the_papers_names_are_the_labels() -> None:
    assert set(PAPER_METRICS) == {row.metric for row in published()}
    assert PAPER_METRICS["InsDel"] == "insdel" and PAPER_METRICS["PG"] == "pointing"
    assert all(metric_column(name).label == label for label, name in PAPER_METRICS.items())
    assert [metric_column(name).better for name in ("deletion", "insertion", "insdel", "aupr1")] == [
        *("lower", "higher", "higher", "higher")
    ]


def test_columns_show_their_numbers() -> None:
    share, bits = MetricColumn("share"), MetricColumn("bits", "Entropy", better="lower", unit="bits", digits=1)
    plain = MetricColumn("n_cells", unit="")
    assert (share.label, share.title, share.factor) == ("share", "share", 100)
    assert (bits.title, bits.factor, bits.title_with_unit) == ("Entropy", 1, "Entropy (bits)")
    assert plain.title_with_unit == "n_cells" and share.title_with_unit == "share (%)"
    assert share.with_error(12.344, 0.5) == "12.34 ± 0.50"
    assert bits.with_error(2.0, 0.25, "+") == "+2.0 ± 0.2" and bits.with_error(float("nan"), 0.0) == ""
    assert units([share]) == "In percent"
    assert units([share, bits, plain]) == "In percent, Entropy in bits, n_cells as a plain number"


def test_options_are_text_as_for_methods() -> None:
    metric, variant = parse_metric("localisation:tolerance=15,upsampling=bicubic")
    assert metric is LOCALISATION and variant.options == {"tolerance": 15, "upsampling": "bicubic"}
    for text, message in {
        "localisation:tolerence=15": r"no option 'tolerence'\. Nearest: tolerance\. Its options are upsampling",
        "faithfulness:protocol=rise": r"The metric faithfulness has no option 'protocol'\. It has none\.",
        "localization": r"metrics='localization' is not known; use .*Nearest: localisation\. cl\.register_metric",
    }.items():
        with pytest.raises(cl.InputError, match=message):
            parse_metric(text)


@pytest.mark.parametrize(
    ("name", "compute", "columns", "message"),
    [
        ("localisation", dict, [MetricColumn("x")], "'localisation' is a built-in metric"),
        ("a:b=1", dict, [MetricColumn("x")], "needs a name such as 'sparsity'"),
        ("", dict, [MetricColumn("x")], "needs a name such as 'sparsity'"),
        ("mine", 3, [MetricColumn("x")], "A metric is a function"),
        ("mine", dict, [], "one or more columns"),
        ("mine", dict, ["x"], "one or more columns"),
        ("mine", dict, [MetricColumn("insdel")], "'insdel' needs another name: the metric 'faithfulness' has one"),
        ("mine", dict, [MetricColumn("shares")], "'shares' needs another name"),
        ("mine", dict, [MetricColumn("x"), MetricColumn("x")], "'x' needs another name: it is given twice"),
    ],
)
def test_what_cannot_be_registered(name: str, compute: object, columns: list, message: str) -> None:
    with pytest.raises(cl.InputError, match=message):
        cl.register_metric(name, compute, columns)
    assert set(METRICS) == {metric.name for metric in BUILT_IN}


def test_columns_that_make_no_sense_are_refused() -> None:
    with pytest.raises(cl.InputError, match="needs a name such as 'top_share', not 'top share'"):
        MetricColumn("top share")
    with pytest.raises(cl.InputError, match="better='more' is not known; use one of higher, lower"):
        MetricColumn("x", better="more")  # type: ignore[arg-type]


def test_a_name_of_ones_own_may_be_registered_again() -> None:
    digests = []
    for power in (1, 2, 1):
        cl.register_metric("mine", lambda given, power=power: {"x": float(power)}, [MetricColumn("x")])
        digests.append(metric_digest("mine"))
    assert digests[0] == digests[2] != digests[1] and metric_digest("localisation") == ""
