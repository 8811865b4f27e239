"""The benchmark: trials, resuming after kills, damaged parts, full disks, interrupts, workers."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import caap_lab as cl
from caap_lab.bench.benchmark import resume
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import SCHEMA, RunFolder
from caap_lab.statistics import standard_error
from caap_lab.variant import Variant, parse_variant
from helpers.models import build

FEW = ("simple_insertion", "grad_cam")
QUICK = {"progress": False, "protocol": "xplique"}


def run(out: Path, **options) -> cl.BenchmarkResult:
    """A small run; ten steps a curve keep it quick."""
    methods = ["caap", "grad_cam", "E-CAAP=caap:attention=cached"]
    return cl.benchmark(["demo"], methods, "demo:single", images=3, out=out, **(QUICK | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> cl.BenchmarkResult:
    return run(tmp_path_factory.mktemp("runs") / "whole")


def numbers(result: cl.BenchmarkResult) -> pd.DataFrame:
    """Everything in a run's rows that must not depend on when, where and in which order they were made."""
    return result.to_dataframe().drop(columns=["seconds", "map_seconds", "machine"])


def test_cells_equal_the_single_calls(finished: cl.BenchmarkResult) -> None:
    model = cl.load_model("demo")
    images = cl.open_images("demo:single").sample(3, 0)
    frame = finished.to_dataframe()
    assert list(frame.columns[:5]) == ["study", "data", "model", "method", "image"] and len(frame) == 9
    for row in frame.to_dict("records"):
        sample = images.named(row["image"])
        method, options = ("caap", {"attention": "cached"}) if row["method"] == "E-CAAP" else (row["method"], {})
        m = cl.attribute(model, sample.image, method, **options)
        curves = cl.insertion_deletion(model, sample.image, m, protocol="xplique")
        mask = model.preprocessing.mask(np.logical_or.reduce(list(sample.regions.masks.values())))
        if m.target in sample.regions.masks:
            mask = model.preprocessing.mask(sample.regions.masks[m.target])
        found = cl.localisation(m, mask)
        assert (row["target"], row["label"]) == (m.target, sample.label)
        assert (row["insertion"], row["deletion"]) == (curves.insertion, curves.deletion)
        assert (row["aupr1"], row["aupr0"], row["pointing"]) == (found.aupr1, found.aupr0, found.pointing)
        np.testing.assert_array_equal(row["insertion_curve"], curves.insertion_curve)
        assert json.loads(row["settings"]).get("attention") == (
            options.get("attention", "exact") if method == "caap" else None
        )
        assert json.loads(row["protocol"])["name"] == "xplique" and row["fingerprint"] == model.fingerprint


def test_means_errors_and_paired_differences(finished: cl.BenchmarkResult) -> None:
    frame, summary = finished.to_dataframe(), finished.summary()
    assert len(summary) == 3 * 9
    for metric in ("deletion", "insdel", "aupr1", "pointing"):
        table = frame.pivot(index="image", columns="method", values=metric)
        for method in table:
            line = summary[(summary["method"] == method) & (summary["metric"] == metric)].iloc[0]
            values = [100 * v for v in table[method]]
            mean = sum(values) / 3
            assert line["mean"] == pytest.approx(mean) and line["n"] == 3
            assert line["se"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 3) ** 0.5 / 3**0.5)
            if method == "caap":
                assert np.isnan(line["difference"])
            else:
                gaps = [100 * (a - b) for a, b in zip(table[method], table["caap"], strict=True)]
                assert line["difference"] == pytest.approx(np.mean(gaps))
                assert line["difference_se"] == pytest.approx(standard_error(np.array(gaps)))
    html = finished._repr_html_()
    assert "E-CAAP" in html and "9 of 9 trials" in html and "±" in html


def test_a_second_run_computes_nothing_and_a_larger_one_only_what_is_new(tmp_path: Path, monkeypatch) -> None:
    from caap_lab.bench import cells

    first = run(tmp_path / "a")
    calls = []
    evaluate = cells.evaluate
    monkeypatch.setattr(cells, "evaluate", lambda trial, *rest, **o: calls.append(trial) or evaluate(trial, *rest, **o))
    pd.testing.assert_frame_equal(run(tmp_path / "a").to_dataframe(), first.to_dataframe())
    assert not calls
    larger = cl.benchmark(
        "demo", ["caap", "rollout"], "demo:single", images=4, out=tmp_path / "a", progress=False, protocol="xplique"
    )
    assert {(c.method.name, c.image) for c in calls} == {
        *(("rollout", name) for name in larger.to_dataframe()["image"]),
        ("caap", larger.to_dataframe()["image"].iloc[3]),
    }
    calls.clear()
    changed = run(tmp_path / "a", protocol="patches")
    assert len(calls) == 9 and changed.summary()["mean"].ne(first.summary()["mean"]).any()


def test_a_run_goes_on_from_its_folder_alone(tmp_path: Path, finished: cl.BenchmarkResult) -> None:
    finished.plan.save(tmp_path / "b" / "plan.json")
    assert BenchmarkPlan.load(tmp_path / "b" / "plan.json") == finished.plan
    assert "0 of 9" in repr(BenchmarkResult.open(tmp_path / "b"))
    pd.testing.assert_frame_equal(numbers(resume(tmp_path / "b", progress=False)), numbers(finished))
    with pytest.raises(cl.InputError, match=r"is not a benchmark's folder: its plan\.json cannot be read"):
        BenchmarkResult.open(tmp_path)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import caap_lab as cl
    cl.benchmark("demo", "grad_cam", "demo:single", images=1, out=sys.argv[1] + "-warm", progress=False)
    left = 0

    def counted(function):
        def call(*arguments, **options):
            global left
            for moment in range(2):  # before it and after it
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == 0:
                    found = function(*arguments, **options)
            return found
        return call

    os.fsync, Path.replace, Path.write_bytes = map(counted, (os.fsync, Path.replace, Path.write_bytes))
    # A run writes its plan (4 points), then each trial (6); the trials that are finished are not written again.
    for number in (2, 4, 5, 6, 7, 8, 9, 10, 11, 17, None):
        pid = os.fork()
        if pid == 0:
            left = number or -1
            cl.benchmark(["demo"], ["caap", "grad_cam", "E-CAAP=caap:attention=cached"], "demo:single",
                         images=3, out=sys.argv[1], progress=False, protocol="xplique")
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.slow  # test_kills.py kills at every point of a write
@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signal")
def test_ten_kills_change_nothing(tmp_path: Path, finished: cl.BenchmarkResult) -> None:
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(tmp_path / "c")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    codes = [int(code) for code in done.stdout.split()]
    assert codes == [-signal.SIGKILL] * 10 + [0], (codes, done.stderr[-2000:])
    result = BenchmarkResult.open(tmp_path / "c")
    pd.testing.assert_frame_equal(numbers(result), numbers(finished), check_exact=True)
    pd.testing.assert_frame_equal(result.summary(), finished.summary(), check_exact=True)
    assert not [path for path in (tmp_path / "c").rglob(".*")]  # nothing half written is left


def test_damaged_parts_are_set_aside_and_computed_again(
    tmp_path: Path, finished: cl.BenchmarkResult, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "d")
    first, second, third, *_ = sorted((tmp_path / "d" / "parts").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    second.write_bytes(b"")
    whole = bytearray(third.read_bytes())
    whole[-6] ^= 0xFF  # the length of the footer
    third.write_bytes(bytes(whole))
    assert "6 of 9 trials are computed." in repr(BenchmarkResult.open(tmp_path / "d"))  # readable meanwhile
    pd.testing.assert_frame_equal(numbers(run(tmp_path / "d")), numbers(finished))
    assert capsys.readouterr().err.count("could not be read and is now in") == 3
    assert len(list((tmp_path / "d" / "damaged").iterdir())) == 3


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "e")
    with (
        folder.locked(),
        pytest.raises(cl.InputError, match=rf"is in use by process {os.getpid()} on "),
    ):
        run(tmp_path / "e")
    assert len(run(tmp_path / "e").to_dataframe()) == 9


def test_runs_merge_by_copying_parts(tmp_path: Path, finished: cl.BenchmarkResult) -> None:
    cl.benchmark("demo", FEW, "demo:single", images=2, out=tmp_path / "f", **QUICK)
    run(tmp_path / "g")
    for part in (tmp_path / "g" / "parts").iterdir():
        (tmp_path / "f" / "parts" / part.name).write_bytes(part.read_bytes())
    both = cl.benchmark("demo", [*FEW, "caap"], "demo:single", images=2, out=tmp_path / "f", **QUICK)
    assert "6 of 6" in both.progress
    frame = RunFolder(tmp_path / "f").read()[0].to_pandas()
    assert len(frame) == 2 * 2 + 9 and frame["key"].duplicated().sum() == 2  # Grad-CAM twice, and counted once
    assert len(both.to_dataframe()) == 6


def test_many_small_parts_are_compacted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "h")
    with folder.locked():
        for index in range(70):
            folder.append([{"key": f"{index:03d}", "image": f"image {index}"}])
        before = folder.rows()
        folder.compact()
        assert len(list(folder.parts.iterdir())) == 1
        pd.testing.assert_frame_equal(folder.rows(), before)
        folder.append([{"key": "000", "image": "again"}])
        assert folder.rows().set_index("key").loc["000", "image"] == "image 0"  # the first one counts


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    def picky(model, images, targets):
        if mark.exists():
            raise RuntimeError("out of memory, say")
        return images.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2))

    mark = tmp_path / "broken"  # no part of the method's code: the same method fails and works
    mark.touch()
    cl.register("picky", picky)
    methods = ["picky", "grad_cam", "grad_cam:version=none"]
    result = cl.benchmark("demo", methods, "demo:single", images=2, out=tmp_path, **QUICK)
    assert "2 of 6 trials are computed, 4 failed." in result.progress
    assert len(result.failed) == 4 and "RuntimeError: out of memory, say" in set(result.failed["error"])
    assert result.failed["error"].str.contains("version='none' is not known").sum() == 2
    assert set(result.summary().query("n > 0")["method"]) == {"grad_cam"}
    mark.unlink()
    again = cl.benchmark("demo", methods, "demo:single", images=2, out=tmp_path, **QUICK)
    assert len(again.failed) == 4  # failures are kept
    again = cl.benchmark("demo", methods, "demo:single", images=2, out=tmp_path, retry_failed=True, **QUICK)
    assert "4 of 6 trials are computed, 2 failed." in again.progress


@pytest.mark.skipif(sys.platform == "win32", reason="bounds the size of files")
def test_a_full_disk_stops_with_a_message_and_keeps_what_was_finished(tmp_path: Path) -> None:
    import resource

    folder = RunFolder(tmp_path / "i")
    bound, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with folder.locked():
        folder.append([{"key": "small"}])
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
        try:
            with pytest.raises(OSError, match=r"could not be written \(.*make room and run the same command again"):
                folder.append([{"key": "large", "shares": [i / 7 for i in range(20_000)]}])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bound, most))
            signal.signal(signal.SIGXFSZ, handler)
    table, damaged = RunFolder(tmp_path / "i").read()
    assert table["key"].to_pylist() == ["small"] and not damaged
    assert [path.suffix for path in folder.parts.iterdir()] == [".parquet"]


def test_ctrl_c_finishes_the_cells_in_flight(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    from caap_lab.bench import cells

    evaluate = cells.evaluate

    def interrupted(trial, *rest, **options):
        if not interrupts:
            interrupts.append(trial)
            signal.raise_signal(signal.SIGINT)
        return evaluate(trial, *rest, **options)

    interrupts: list = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cells, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    told = capsys.readouterr().err
    assert "Finishing the trials in progress" in told
    assert re.search(r"[1-8] of 9 trials are computed. Run the same again", told)  # those that share a batch
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert "9 of 9" in run(tmp_path).progress


def test_hooked_models_of_ones_own(tmp_path: Path) -> None:
    model = build("vit")
    images = cl.open_images("demo:single")[:2]
    result = cl.benchmark(model, FEW, images, out=tmp_path, **QUICK)
    assert "4 of 4" in result.progress and set(result.to_dataframe()["fingerprint"]) == {model.fingerprint}
    with pytest.raises(cl.InputError, match=r"came as an object, not by name; call cl\.benchmark"):
        resume(tmp_path)
    with torch.no_grad():
        model.vit.head.bias += 1
    assert len(cl.benchmark(model, FEW, images, out=tmp_path, **QUICK).to_dataframe()) == 4
    assert len(RunFolder(tmp_path).rows()) == 8  # other weights, other trials


def test_labels_as_targets(tmp_path: Path) -> None:
    methods = ["grad_cam"]
    result = cl.benchmark("demo", methods, "demo:two", images=4, target="label", out=tmp_path, **QUICK)
    frame = result.to_dataframe()
    assert (frame["target"] == frame["label"]).all() and set(frame["mask"]) == {"target"}


def test_image_lists(tmp_path: Path) -> None:
    images = cl.open_images("demo:single").sample(3, seed=4)
    images.save_list(tmp_path / "list.txt")
    result = cl.benchmark(
        "demo", "grad_cam", "demo:single", image_list=tmp_path / "list.txt", out=tmp_path / "j", **QUICK
    )
    assert list(result.to_dataframe()["image"]) == [sample.name for sample in images]
    assert result.plan.studies[0].data.chosen == "a list of 3"


def test_specs() -> None:
    text = "tiny=vit_tiny_patch16_224:checkpoint=a/b.safetensors,mean=[0.5,0.5,0.5],image_size=224"
    spec = parse_variant(text)
    assert spec == Variant(
        "vit_tiny_patch16_224", {"checkpoint": "a/b.safetensors", "mean": [0.5, 0.5, 0.5], "image_size": 224}, "tiny"
    )
    assert parse_variant(f"tiny={spec.text}") == spec and parse_variant("caap").label == "caap"
    assert parse_variant(Variant("x", {"a": "1", "b": True, "c": 0.5}).text).options == {"a": "1", "b": True, "c": 0.5}
    for bad in ("caap:cutoff", "=caap", "", "caap:=3"):
        with pytest.raises(cl.InputError, match=r"write NAME"):
            parse_variant(bad)


def test_what_cannot_be_used_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for error, change in {
        "There is no method 'caab'.* Nearest: caap": {"methods": "caab"},
        "Two methods are called 'caap'": {"methods": ["caap", "caap"]},
        "target='truth' is not known; use prediction or label": {"target": "truth"},
        "metrics='speed' is not known": {"metrics": ["speed"]},
        "There is no protocol 'rices'": {"protocol": "rices"},
        "10000 images were requested": {"images": 10_000},
        "batch_size": {"batch_size": 0},
        "not both": {"workers": 1, "scheduler": "tcp://127.0.0.1:1"},
    }.items():
        options = {"models": "demo", "methods": "grad_cam", "data": "demo:single", "images": 1, "out": tmp_path / "k"}
        with pytest.raises(cl.InputError, match=error):
            cl.benchmark(**{**options, "progress": False, **change})


def test_every_number_of_a_row_has_a_column(finished: cl.BenchmarkResult) -> None:
    frame = finished.to_dataframe()
    assert set(SCHEMA.names) - {"key"} <= set(frame.columns)
    empty = [name for name in frame if frame[name].isna().all()]
    assert empty == ["target_object", "saco", "error"]  # a class says all, and this metric is not a default


@pytest.mark.slow  # half a minute
def test_workers_lose_no_cell_when_one_is_killed(tmp_path: Path, finished: cl.BenchmarkResult, monkeypatch) -> None:
    from dask.distributed import Client

    killed = []
    append = RunFolder.append

    def append_and_kill(self, rows):
        append(self, rows)
        if not killed:
            pids = sorted(Client.current().run(os.getpid).values())
            for pid in pids:
                os.kill(pid, signal.SIGINT)  # Ctrl-C in a terminal reaches the workers as well, and must not stop them
            assert sorted(Client.current().run(os.getpid).values()) == pids
            killed.append(pids[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(RunFolder, "append", append_and_kill)
    result = run(tmp_path, workers=2)
    assert len(killed) == 1 and "9 of 9 trials are computed." in result.progress
    rows = RunFolder(tmp_path).read()[0].to_pandas()
    assert len(rows) == 9 and rows["key"].is_unique
    pd.testing.assert_frame_equal(numbers(result), numbers(finished))
