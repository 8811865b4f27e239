"""The live view of a benchmark, without a browser: what it says, when it reads, and that it only reads."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import caap_lab as cl
from caap_lab.bench.plan import BenchmarkPlan, Data, Study, Trial
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.variant import parse_variant

METHODS = ("caap", "grad_cam", "rollout")
IMAGES = tuple(f"image {i}" for i in range(4))
SHARES = [0.0, 0.5, 1.0]


def plan_of(images: tuple[str, ...] = IMAGES) -> BenchmarkPlan:
    models = tuple(parse_variant(text) for text in ("one=demo", "two=demo-clip"))
    return BenchmarkPlan((Study(Data("demo:single", images, "all"), models, tuple(map(parse_variant, METHODS))),))


def row_of(trial: Trial, generator: np.random.Generator) -> dict:
    insertion, deletion = generator.random((2, 3))
    names = ("aupr1", "aupr0", "pointing", "pointing_expected", "mass_inside")
    numbers = dict(zip(names, generator.random(5), strict=True))
    return {
        "key": trial.key,
        "fingerprint": "abc",
        "machine": "a machine",
        "versions": {"torch": "2"},
        "mask": "target",
        "insertion": insertion.mean(),
        "deletion": deletion.mean(),
        "insdel": insertion.mean() - deletion.mean(),
        "shares": SHARES,
        "insertion_curve": list(insertion),
        "deletion_curve": list(deletion),
        **numbers,
    }


def write(folder: Path, trials: list[Trial], seed: int = 0) -> None:
    """Finished trials with drawn numbers, a part each, as a run writes them."""
    generator = np.random.default_rng(seed)
    run = RunFolder(folder)
    run.parts.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        run.append([row_of(trial, generator)])


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    plan = plan_of()
    plan.save(tmp_path / "run" / "plan.json")
    write(tmp_path / "run", list(plan.trials))
    return tmp_path / "run"


def shown(folder: Path | BenchmarkResult):
    """The view, when it has read."""
    view = cl.widgets.benchmark(folder)
    view.worker.wait()
    assert view.message == ""
    return view


async def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    loop = asyncio.get_running_loop()
    limit = loop.time() + seconds
    while not condition():
        assert loop.time() < limit, "it did not happen"
        await asyncio.sleep(0.01)


def test_numbers_are_the_results_own(finished: Path) -> None:
    view = shown(finished)
    result = BenchmarkResult.open(finished)
    assert result.progress in view._progress.value and 'max="24" value="24"' in view._progress.value
    assert view.choice.metric == "insdel" and view.static_image.png[:4] == b"\x89PNG"
    summary = result.summary()
    for metric in ("insdel", "deletion"):
        view.metric_box.value = metric
        view.worker.wait()
        best = summary[summary["metric"] == metric].groupby("model")["mean"].agg("max" if metric == "insdel" else "min")
        for line in summary[summary["metric"] == metric].itertuples():
            text = f"{line.mean:.2f} ± {line.se:.2f}"
            assert f"<b>{text}</b></td>" in view._table.value or line.mean != best[line.model]
            assert text in view._table.value
            if line.method != "caap":
                assert f"{line.difference:+.2f} ± {line.difference_se:.2f}" in view._table.value
    assert "over 4 images" in view._table.value and "Curves: protocol rise" in view._protocol.value
    code = view.link.splitlines()
    numbers = eval(code[1], {"result": result})
    assert set(numbers["metric"]) == {"deletion"} and len(numbers) == 6


def test_figure_shows_means_of_stored_curves(finished: Path) -> None:
    view = shown(finished)
    view.model_box.value = "two"
    view.worker.wait()
    insertion, deletion, dots = view.to_figure().axes
    frame = view.result.to_dataframe()
    for ax, kind in ((insertion, "insertion"), (deletion, "deletion")):
        line = next(line for line in ax.lines if line.get_label() == "rollout")
        part = frame[(frame["model"] == "two") & (frame["method"] == "rollout")]
        np.testing.assert_allclose(line.get_ydata(), np.stack(part[f"{kind}_curve"].to_list()).mean(axis=0))
    assert [text.get_text() for text in dots.get_yticklabels()] == ["one", "two"]
    assert "two" in view.static_image.label


def test_a_run_in_another_process(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    code = f"""
import caap_lab as cl
cl.benchmark(["demo"], ["grad_cam", "rollout"], "demo:single", images=2, out={str(folder)!r}, protocol="xplique",
             progress=False)
"""

    async def watch() -> None:
        view = cl.widgets.benchmark(folder, every=0.1)
        await until(lambda: "There is no folder" in view._progress.value)
        process = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-W", "ignore", "-c", code])
        await until(lambda: "4 of 4 trials are computed." in view._progress.value)
        assert await asyncio.to_thread(process.wait, 180) == 0
        await until(lambda: not view.refreshing)
        line = BenchmarkResult.open(folder).summary().query("metric == 'insdel' and method == 'rollout'").iloc[0]
        assert f"{line['mean']:.2f} ± {line['se']:.2f}" in view._table.value
        view.close()

    asyncio.run(watch())


def test_progress_moves_and_refreshing_ends(tmp_path: Path, monkeypatch) -> None:
    from caap_lab.widgets import benchmark_view, run_snapshot
    from caap_lab.widgets.benchmark_view import BenchmarkView

    reads = []
    polls = []
    of, stamp = run_snapshot.RunSnapshot.of, run_snapshot.stamp
    monkeypatch.setattr(
        run_snapshot.RunSnapshot, "of", lambda result: reads.append(threading.get_ident()) or of(result)
    )
    monkeypatch.setattr(benchmark_view, "stamp", lambda folder: polls.append(folder) or stamp(folder))
    plan = plan_of()
    trials = list(plan.trials)

    async def watch() -> BenchmarkView:
        view = cl.widgets.benchmark(tmp_path / "run", every=0.02)
        assert view.refreshing
        await until(lambda: "There is no folder" in view._progress.value)
        assert view.link.startswith("result = cl.BenchmarkResult.open(") and view.result is None
        (tmp_path / "run").mkdir()
        await until(lambda: "holds no benchmark yet" in view._progress.value)
        plan.save(tmp_path / "run" / "plan.json")
        await until(lambda: "0 of 24 trials are computed." in view._progress.value)
        assert view._table.layout.display == "none" and "0 of 4" in view._counts.value
        write(tmp_path / "run", trials[:7])
        await until(lambda: "7 of 24 trials" in view._progress.value)
        assert "trials per minute over the last" in view._progress.value and "left." in view._progress.value
        assert "The last trial came" in view._progress.value
        assert "17 missing trials" in view._protocol.value and "(n " in view._table.value
        await until(lambda: view._seen == stamp([tmp_path / "run"]))  # a look may begin between two parts
        before, polled_before = len(reads), len(polls)
        await until(lambda: len(polls) > polled_before + 2)
        assert len(reads) == before  # nothing has changed, nothing is read
        view.metric_box.value = "aupr1"
        await until(lambda: "AUPR1" in view._table.value)
        write(tmp_path / "run", trials[7:], seed=1)
        await until(lambda: "24 of 24 trials" in view._progress.value)
        await until(lambda: not view.refreshing)
        assert view.metric_box.value == "aupr1" and view._status.text == "complete"
        larger = plan_of((*IMAGES, "one more"))
        larger.save(tmp_path / "run" / "plan.json")
        view.refresh_button.click()
        await until(lambda: "24 of 30 trials" in view._progress.value)
        assert view.refreshing
        return view

    async def close() -> None:
        view = await watch()
        view.close()
        await asyncio.to_thread(view.worker._thread.join, 180)  # a look that had begun comes to its end
        before = len(reads)
        write(tmp_path / "run", [plan_of((*IMAGES, "one more")).trials[-1]])
        view.refresh()
        await asyncio.sleep(0.1)
        assert not view.refreshing and len(reads) == before

    asyncio.run(close())
    assert threading.get_ident() not in reads  # the kernel's thread reads nothing


def test_failed_cells_and_damaged_parts_are_reported_and_left_alone(finished: Path) -> None:
    trials = plan_of().trials
    parts = sorted(RunFolder(finished).parts.iterdir())
    for part in parts[:2]:
        part.unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    RunFolder(finished).append(
        [{"key": trial.key, "error": f"InputError: <nothing> {trial.image}"} for trial in trials[:2]]
    )
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    view = shown(finished)
    assert "21 of 24 trials are computed, 2 failed." in view._progress.value
    assert view._failed_list.titles == ("Failed trials: 2",) and view._failed_list.layout.display is None
    first = view.result.failed.iloc[0]
    assert (
        f"{first['method']} of {first['model']} on {first['image']}: InputError: &lt;nothing&gt;"
        in view._failures.value
    )
    assert "1 part file cannot be read" in view._damaged.value and parts[2].name in view._damaged.value
    assert "1 failed</div>" in view._counts.value
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before  # no lock, nothing moved
    assert view.result.damaged == [parts[2]]


def test_reading_beside_a_writer_that_holds_the_lock(finished: Path) -> None:
    with RunFolder(finished).locked():
        assert "24 of 24" in shown(finished)._progress.value


def test_counts_add_up(finished: Path) -> None:
    counts = BenchmarkResult.open(finished).counts()
    assert counts[["planned", "computed", "failed"]].sum().to_list() == [24, 24, 0]
    assert list(counts[["model", "method"]].itertuples(index=False, name=None))[:2] == [
        ("one", "caap"),
        ("one", "grad_cam"),
    ]


def test_every_folder_of_a_joined_result_is_polled(tmp_path: Path) -> None:
    plan = plan_of(IMAGES[:1])
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, trial in zip(folders, plan.trials, strict=False):
        folder.mkdir()
        plan.save(folder / "plan.json")
        write(folder, [trial])
    view = shown(BenchmarkResult.open(folders))
    assert "2 of 6 trials" in view._progress.value and str(folders[1]) in view.link
    write(folders[1], list(plan.trials)[2:4])
    view.refresh()
    view.worker.wait()
    assert "4 of 6 trials" in view._progress.value


def test_results_and_what_is_no_run(finished: Path, tmp_path: Path) -> None:
    result = BenchmarkResult.open(finished)
    smaller = BenchmarkResult(plan_of(IMAGES[:2]), result.folder)
    assert "12 of 12" in shown(smaller)._progress.value
    with pytest.raises(cl.InputError, match="is a file; pass the folder of a run"):
        cl.widgets.benchmark(finished / "plan.json")
    with pytest.raises(cl.InputError, match="not int"):
        cl.widgets.benchmark(3)
    (finished / "plan.json").write_text("{")
    view = cl.widgets.benchmark(finished)
    view.worker.wait()
    assert "plan.json cannot be read" in view.message
    view.refresh()
    view.worker.wait()
    assert "plan.json cannot be read" in view.message
    plan_of().save(finished / "plan.json")
    view.refresh()
    view.worker.wait()
    assert view.message == "" and "24 of 24" in view._progress.value
