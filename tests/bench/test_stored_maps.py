"""Maps that a run's folder already holds: they are measured under another protocol or metric, not made again."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import caap_lab as cl
from caap_lab.bench import cells, stored_maps, trial
from caap_lab.bench.run_folder import RunFolder
from caap_lab.sweeps import run_sweep

METHODS = ["caap", "grad_cam", "shapley:samples=100", "rank_sum"]


def run(out: Path, **changes: Any) -> pd.DataFrame:
    given = {"models": "demo", "methods": METHODS, "data": "demo:single", "images": 2, "protocol": "xplique"}
    cl.benchmark(**{**given, **changes}, out=out, progress=False)
    return RunFolder(out).rows()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    run(tmp_path / "run")
    return tmp_path / "run"


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a map is made."""

    def made(*_: object, **__: object) -> None:
        raise AssertionError("a map was made again")

    for module in (cells, trial):
        monkeypatch.setattr(module, "attribute", made)
    monkeypatch.setattr(run_sweep, "caap_maps", made)


@pytest.mark.parametrize("changes", [{"protocol": "mutex"}, {"metrics": ["saco"]}], ids=["protocol", "metric"])
def test_maps_are_measured_again_and_not_made_again(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    anew = run(tmp_path / "anew", **changes).set_index("key")
    forbid(monkeypatch)
    rows = run(first, **changes).set_index("key")
    rows = rows.loc[anew.index]
    assert rows["error"].isna().all() and len(rows) == 2 * len(METHODS)
    ignored = ["seconds", "map_seconds"]  # as measured
    pd.testing.assert_frame_equal(rows.drop(columns=ignored), anew.drop(columns=ignored), check_exact=True)


def margin(logits: torch.Tensor) -> torch.Tensor:
    """A target that is a function of the logits."""
    return logits[..., 1] - logits[..., 2]


@pytest.mark.parametrize(
    "target", [margin, "direction", cl.contrast("prediction")], ids=["function", "direction", "contrast"]
)
def test_other_targets_have_the_numbers_of_new_maps(tmp_path: Path, target: Any) -> None:
    model = cl.load_model("demo")
    if target == "direction":
        target = cl.direction(torch.linspace(-1, 1, model.spec.d_model), "ramp")
    given: dict[str, Any] = {"models": model, "methods": ["caap", "grad_cam"], "target": target}
    run(tmp_path / "run", **given)
    anew = run(tmp_path / "anew", **given, protocol="mutex").set_index("key")
    rows = run(tmp_path / "run", **given, protocol="mutex").set_index("key").loc[anew.index]
    assert rows["error"].isna().all()
    pd.testing.assert_frame_equal(rows[["insertion", "deletion"]], anew[["insertion", "deletion"]], check_exact=True)


def test_a_single_trial_uses_its_stored_map(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch)
    rows = run(first, methods=["grad_cam"], images=1, protocol="mutex")
    assert len(rows) == 2 * len(METHODS) + 1 and rows["error"].isna().all()


@pytest.mark.parametrize(
    "changes",
    [{"target": "label"}, {"target": cl.logit(0)}, {"methods": ["caap:cutoff=2"]}, {"models": "demo:dtype=float64"}],
    ids=["rule", "target", "option", "model"],
)
def test_maps_of_something_else_are_made(first: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    forbid(monkeypatch)
    rows = run(first, protocol="mutex", **changes)
    assert rows["error"].str.contains("a map was made again").sum() == len(rows) - 2 * len(METHODS) > 0


def test_workers_receive_stored_maps(first: Path) -> None:
    before = RunFolder(first).rows()
    rows = run(first, protocol="mutex", workers=1)
    new = rows[~rows["key"].isin(before["key"])]
    # A map's time is measured, so equal times to the last bit show that it was not made again.
    times = {(row.method, row.image): row.map_seconds for row in before.itertuples()}
    assert len(new) == 2 * len(METHODS)
    assert [times[row.method, row.image] for row in new.itertuples()] == list(new["map_seconds"])


def test_a_metric_of_the_user_gets_all_that_a_map_has(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def classes(given: Any) -> dict[str, float]:
        every, errors = given.map.all_scores, given.map.standard_errors
        return {"classes": 0 if every is None else every.shape[-1], "errors": float(errors is not None)}

    made: list[str] = []

    def counted(model: Any, images: Any, method: Any, *args: Any, **options: Any) -> Any:
        made.append(str(method))
        return cl.attribute(model, images, method, *args, **options)

    columns = [cl.MetricColumn("classes", label="Classes"), cl.MetricColumn("errors", label="Errors")]
    cl.register_metric("classes_of_map", classes, columns)
    anew = run(tmp_path / "anew", metrics=["classes_of_map"]).set_index("key")
    for module in (cells, trial):
        monkeypatch.setattr(module, "attribute", counted)
    rows = run(first, metrics=["classes_of_map"]).set_index("key").loc[anew.index]
    assert rows[["classes", "errors"]].equals(anew[["classes", "errors"]]) and rows["classes"].max() > 0
    assert set(made) == {"caap", "shapley"}, "maps with scores of other classes, or standard errors"


def test_a_sweep_measures_stored_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = cl.load_model("demo"), cl.open_images("demo:single").sample(2, 0)
    given: dict[str, Any] = {"metrics": ["faithfulness"], "progress": False}
    cl.sweep_cutoffs(model, images, cutoffs=[1, 2], **given, protocol="xplique", out=tmp_path / "run")
    anew = cl.sweep_cutoffs(model, images, cutoffs=[1, 2, 3], **given, protocol="mutex")
    asked: list[int] = []
    original = run_sweep.caap_maps

    def counted(model: Any, x: Any, target: Any, several: Any, **options: Any) -> Any:
        asked.append(len(several))
        return original(model, x, target, several, **options)

    monkeypatch.setattr(run_sweep, "caap_maps", counted)
    again = cl.sweep_cutoffs(model, images, cutoffs=[1, 2, 3], **given, protocol="mutex", out=tmp_path / "run")
    assert asked == [1, 1], "of each image, the map of the new cutoff alone"
    for name in ("insdel", "insertion", "deletion"):
        assert torch.allclose(torch.tensor(again.data[name].values), torch.tensor(anew.data[name].values), atol=1e-6)


def test_maps_of_another_version_are_made_again(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_maps, "__version__", "another")
    forbid(monkeypatch)
    rows = run(first, protocol="mutex")
    assert rows["error"].str.contains("a map was made again").sum() == 2 * len(METHODS)


def test_a_folder_without_these_columns_is_continued(first: Path) -> None:
    folder = RunFolder(first)
    old = folder.rows().drop(columns=["map_key", "map_complete"])

    for path in folder.parts.glob("*.parquet"):
        path.unlink()
    pq.write_table(pa.Table.from_pandas(old, preserve_index=False), folder.parts / "old.parquet")
    rows = run(first, protocol="mutex")
    assert len(rows) == 4 * len(METHODS) and rows["error"].isna().all()
