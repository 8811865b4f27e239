"""Metrics of one's own: from `cl.register_metric` to rows, keys, tables, widgets, sweeps and workers."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import caap_lab as cl
from caap_lab.bench import own_code
from caap_lab.bench.benchmark import resume
from caap_lab.bench.plan import Trial
from caap_lab.bench.run_folder import SCHEMA, RunFolder
from caap_lab.bench.tables.table import make_tables
from caap_lab.metrics.catalogue import METRICS
from caap_lab.metrics.metric import MetricInput
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.variant import Variant
from caap_lab.widgets.run_snapshot import Choice, RunSnapshot

COLUMNS = [
    cl.MetricColumn("top_share", "Top", "score in the highest tenth", better="higher"),
    cl.MetricColumn("entropy", "Entropy", "entropy of the map", better="lower", unit="bits", digits=3),
]
QUICK = {"images": 2, "progress": False, "protocol": "xplique"}


def focus(scale: float = 1.0) -> Callable[..., dict[str, float]]:
    """A metric of two numbers; `scale` makes it another one."""

    def compute(given: MetricInput, *, share: float = 0.1) -> dict[str, float]:
        scores = np.sort(np.abs(given.map.scores.numpy().astype(float)).ravel())[::-1]
        weights = scores / scores.sum()
        top = weights[: max(1, round(share * len(weights)))].sum()
        some = weights[weights > 0]
        return {"top_share": scale * float(top), "entropy": float(-(some * np.log2(some)).sum())}

    return compute


@pytest.fixture(autouse=True)
def focus_metric() -> None:
    """The metric is registered."""
    cl.register_metric("focus", focus(), COLUMNS)


def run(out: Path, **options) -> cl.BenchmarkResult:
    methods = options.pop("methods", ["caap", "rollout"])
    return cl.benchmark("demo", methods, "demo:single", out=out, **{"metrics": ["focus"], **QUICK, **options})


def test_a_metric_of_ones_own_from_rows_to_tables_and_pictures(tmp_path: Path) -> None:
    result = run(tmp_path)
    rows, model, images = result.to_dataframe(), cl.load_model("demo"), cl.open_images("demo:single")
    assert len(rows) == 4 and rows["insdel"].isna().all() and rows["protocol"].isna().all()
    for row in rows.to_dict("records"):
        x = model.preprocess(images.named(row["image"]).image)
        expected = focus()(MetricInput(model, x, cl.attribute(model, x, row["method"])))
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)  # maps made together
    for part in (tmp_path / "parts").glob("*.parquet"):
        assert pq.read_schema(part).names == [*SCHEMA.names, "top_share", "entropy"]

    summary = result.summary()
    assert list(dict.fromkeys(summary["metric"])) == ["top_share", "entropy"]
    for line in summary.to_dict("records"):
        values = rows[rows["method"] == line["method"]][line["metric"]].to_numpy()
        factor = 100 if line["metric"] == "top_share" else 1  # bits are no shares
        assert line["mean"] == pytest.approx(factor * values.mean()) and line["n"] == 2
    means = summary.set_index(["method", "metric"])["mean"]

    (table,) = make_tables(result)
    text = table.markdown()
    assert "| Method | demo Top | demo Entropy |" in text and "In percent, Entropy in bits, mean over images" in text
    for metric, digits in (("top_share", 2), ("entropy", 3)):
        best = (max if metric == "top_share" else min)(("caap", "rollout"), key=lambda name: means[name, metric])
        assert f"**{means[best, metric]:.{digits}f} ± " in text  # the lowest entropy is the best
    assert "Metrics with options or code of their own: focus." in text and "Curves:" not in text
    assert "Method & Top & Entropy" in table.latex()
    assert "Entropy in bits, lower is better" in table.html("entropy")
    assert "Top in percent, higher is better" in table.html("top_share")

    snapshot = RunSnapshot.of(result)
    choice = snapshot.settle(Choice(metric="entropy"))
    assert snapshot.metrics(choice) == ["top_share", "entropy"] and choice.metric == "entropy"
    assert any("entropy of the map (bits)" in ax.get_xlabel() for ax in snapshot.figure(choice).axes)
    assert "In percent, Entropy in bits" in result._repr_html_()


def test_a_result_is_kept_under_the_metrics_code_and_options(tmp_path: Path) -> None:
    def computed() -> int:
        return len(RunFolder(tmp_path).rows())

    few = {"methods": "rollout", "images": 1}
    first = run(tmp_path, **few).to_dataframe()
    cl.register_metric("focus", focus(), COLUMNS)  # the same again
    run(tmp_path, **few)
    assert computed() == 1
    cl.register_metric("focus", focus(0.5), COLUMNS)
    changed = run(tmp_path, **few).to_dataframe()
    assert computed() == 2 and changed["top_share"][0] == 0.5 * first["top_share"][0]
    wider = run(tmp_path, **few, metrics=["focus:share=0.2"]).to_dataframe()
    assert computed() == 3 and wider["top_share"][0] > changed["top_share"][0]
    cl.register_metric("focus", focus(), COLUMNS)
    assert run(tmp_path, **few).to_dataframe().equals(first) and computed() == 3


def test_options_of_a_built_in_metric_decide_its_key(tmp_path: Path) -> None:
    few = {"methods": "rollout", "images": 1}
    found = {
        text: run(tmp_path, **few, metrics=[text]).to_dataframe()
        for text in ("localisation", "localisation:tolerance=64", "localisation:upsampling=nearest-exact")
    }
    assert len(RunFolder(tmp_path).rows()) == 3
    assert found["localisation:tolerance=64"]["pointing"].tolist() == [1.0]  # the whole image is near
    aupr = [frame["aupr1"][0] for frame in found.values()]
    assert aupr[0] == aupr[1] != aupr[2]
    (table,) = make_tables(cl.BenchmarkResult.open(tmp_path))
    assert "Localisation: nearest-exact maps against" in table.markdown()


def test_keys_of_built_in_metrics_stay_as_they_were() -> None:
    for metrics, key in {
        ("faithfulness", "localisation"): "d859b309ba4c58f5b0062073",
        ("localisation",): "92b0669c21fab22c54e2102a",
        (): "8433d80abecd0143a972ad56",
    }.items():
        method, protocol = Variant("caap", {"attention": "cached"}), CurveProtocol("rise-28", step="8 rows")
        digests = ("aa", "bb", "cc")
        trial = Trial(Variant("demo"), method, "demo:single", "single-00000", metrics, "prediction", protocol, *digests)
        assert trial.key == key


def test_older_rows_of_a_folder_read_as_missing(tmp_path: Path) -> None:
    few = {"methods": "rollout", "images": 1}
    older = run(tmp_path, **few, metrics=["localisation"])
    assert "top_share" not in older.to_dataframe()
    both = run(tmp_path, methods=["rollout"], images=2, metrics=["localisation"])  # after a part with more columns
    run(tmp_path, **few, metrics=["localisation", "focus"])
    rows = RunFolder(tmp_path).rows()
    assert len(rows) == 3 and rows["top_share"].notna().sum() == 1 and rows["aupr1"].notna().all()
    assert cl.BenchmarkResult(both.plan, tmp_path).summary()["n"].tolist() == [2] * 6
    RunFolder(tmp_path).compact()


def test_results_can_be_read_where_the_metric_is_not_registered(tmp_path: Path) -> None:
    expected = [table.markdown() for table in make_tables(run(tmp_path))]
    del METRICS["focus"]
    result = cl.BenchmarkResult.open(tmp_path)
    assert [table.markdown() for table in make_tables(result)] == expected
    assert RunSnapshot.of(result).figure(Choice(metric="entropy")).axes
    with pytest.raises(cl.InputError, match=r"metrics='focus' is not known.*cl\.register_metric"):
        resume(tmp_path, progress=False)


def test_plans_say_only_what_is_special(tmp_path: Path) -> None:
    run(tmp_path / "own", methods="rollout", images=1)
    run(tmp_path / "built_in", methods="rollout", images=1, metrics=["localisation"])
    own, built_in = (json.loads((tmp_path / name / "plan.json").read_text()) for name in ("own", "built_in"))
    assert set(built_in["identity"]) == {"models", "methods", "images"}  # as earlier versions read it
    assert [column["name"] for column in own["identity"]["metrics"]["focus"]["columns"]] == ["top_share", "entropy"]
    for odd in (3, {"focus": 3}, {"focus": {**own["identity"]["metrics"]["focus"], "columns": [{"name": "x"}]}}):
        own["identity"]["metrics"] = odd
        (tmp_path / "own" / "plan.json").write_text(json.dumps(own))
        with pytest.raises(cl.InputError, match=r"plan\.json is not a plan of a benchmark"):
            cl.BenchmarkResult.open(tmp_path / "own")


def test_what_a_metric_returns_is_checked_in_each_trial(tmp_path: Path) -> None:
    for compute, message in (
        (lambda given: {"top_share": 1.0}, "The metric focus must return a dict with top_share, entropy; it returned"),
        (lambda given: 1.0, "it returned float"),
        (lambda given: {"top_share": "high", "entropy": 1.0}, "must return numbers; top_share is 'high'"),
        (lambda given: {"top_share": float("inf"), "entropy": 1.0}, "returned top_share = inf"),
        (lambda given: {"top_share": 1 / 0, "entropy": 1.0}, "ZeroDivisionError"),
    ):
        cl.register_metric("focus", compute, COLUMNS)
        (error,) = run(tmp_path, methods="rollout", images=1).failed["error"]
        assert message in error
    cl.register_metric("focus", lambda given: {"top_share": float("nan"), "entropy": 2}, COLUMNS)
    summary = run(tmp_path, methods="rollout", images=1).summary().set_index("metric")
    assert summary.loc["top_share", "n"] == 0 and summary.loc["entropy", "mean"] == 2  # NaN stands for no value


def test_a_metric_reads_only_what_it_says(tmp_path: Path) -> None:
    def seen(given: MetricInput) -> dict[str, float]:
        masked = float("nan") if given.mask is None else float(given.mask.mean())
        return {"top_share": masked, "entropy": float(given.protocol is not None)}

    cl.register_metric("focus", seen, COLUMNS)
    (row,) = run(tmp_path, methods="rollout", images=1).to_dataframe().to_dict("records")
    assert np.isnan(row["top_share"]) and row["entropy"] == 0 and pd.isna(row["mask"])
    cl.register_metric("focus", seen, COLUMNS, needs_masks=True, reads_protocol=True)
    (row,) = run(tmp_path, methods="rollout", images=1).to_dataframe().to_dict("records")
    assert 0 < row["top_share"] < 1 and row["entropy"] == 1 and row["mask"] in ("target", "all objects")
    assert json.loads(row["protocol"])["name"] == "xplique" and len(RunFolder(tmp_path).rows()) == 2


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["focus", "focus:share=0.5"], "The metric 'focus' is given twice"),
        (["focus:part=1"], r"The metric focus has no option 'part'.*Its options are share\."),
        (["focs"], r"Nearest: .*focus"),
    ],
)
def test_metrics_that_cannot_run_are_refused_before_anything_runs(
    tmp_path: Path, metrics: list[str], message: str
) -> None:
    with pytest.raises(cl.InputError, match=message):
        run(tmp_path / "run", metrics=metrics)
    assert not (tmp_path / "run").exists()


def test_a_column_that_rows_have_already_is_refused(tmp_path: Path) -> None:
    cl.register_metric("focus", lambda given: {"seconds": 1.0}, [cl.MetricColumn("seconds")])
    with pytest.raises(cl.InputError, match="The column 'seconds' of focus needs another name: rows already have it"):
        run(tmp_path / "run")


def test_sweeps_take_it_too() -> None:
    sweep = cl.sweep_cutoffs(
        cl.load_model("demo"),
        cl.open_images("demo:single")[:2],
        cutoffs=[2, 4],
        metrics=("focus:share=0.2",),
        progress=False,
    )
    assert sweep.metric_names == ("top_share", "entropy") and sweep.values("entropy").shape == (2, 2)
    expected = focus()(MetricInput(sweep.model, None, sweep.map(1, 4)), share=0.2)  # type: ignore[arg-type]
    assert sweep.values("top_share")[1, 1] == expected["top_share"]
    summary = sweep.summary().set_index(["cutoff", "metric"])
    assert summary.loc[(4, "entropy"), "mean"] == pytest.approx(sweep.values("entropy")[:, 1].mean())
    assert sweep.plot(metric="entropy").get_ylabel() == "entropy of the map (bits)"


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## A metric of your own\n.*?```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"cl": cl}
    exec(compile(code, "docs/benchmark.md", "exec"), names)
    rows = names["result"].to_dataframe()
    assert len(rows) == 4 and rows["error"].isna().all()
    assert rows["gini"].between(0, 1).all() and rows["largest"].between(0.2, 1).all()


def test_its_code_goes_to_workers() -> None:
    content = own_code.packed(["caap"], ["focus", "localisation"])
    assert list(content) == [("metric", "focus")]
    metric = METRICS.pop("focus")
    own_code.install(content)
    installed = METRICS["focus"]
    assert installed.columns == metric.columns and installed.options == {"share": 0.1}
    own_code.install(content)
    assert METRICS["focus"] is installed  # the same code is not read again
