"""What a run costs, taken apart: counted passes, shares, sweeps of figures, and the choices that save most."""

from dataclasses import replace

import pytest

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.bench.figures.needs import sweep_needs
from caap_lab.bench.paper import cost_report as module
from caap_lab.bench.paper.cost_report import cost_report
from caap_lab.bench.paper.costs import choices, cost_of, disk_bytes, sweep_jobs, table_jobs
from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.run_cost import Measured
from caap_lab.commands.cost_lines import cost_lines, duration
from helpers.passes import Passes

SIZE = ModelSize("vit", (64, 64), (8, 8), 64)
LARGE = ("ViT-L/16", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16")
SIZES = {(dataset, model): SIZE for dataset in ("ImageNet-1K", "ImageNet-S") for model in LARGE}
ONES = dict.fromkeys(LARGE, 1.0)


def test_passes_are_those_that_a_run_makes() -> None:
    settings = PaperSettings(tables=(1,), methods=("Grad-CAM", "IxG+"), protocol="chefer")
    jobs = [job for job in table_jobs(settings, SIZES, {"ImageNet-1K": 2}) if job.model == "ViT-L/16"]
    model, images = cl.load_model("demo"), cl.demo_images("single", 2)
    for job, method in zip(jobs, ("grad_cam", "ixg_plus"), strict=True):
        with Passes(model) as passes:
            for sample in images:
                m = cl.attribute(model, sample.image, method, 3, progress=False)
                cl.insertion_deletion(model, sample.image, m, protocol="chefer")
        assert job.passes == pytest.approx(passes.forwards + 2 * passes.backwards, rel=0.02)


def test_tables_share_trials_and_have_counts_of_their_own() -> None:
    settings = PaperSettings(
        tables=(1, 10, 12), methods=("CAAP", "E-CAAP"), images={"faithfulness": 40, "table 10": 10}
    )
    jobs = table_jobs(settings, SIZES, {})
    assert {(job.method, job.images) for job in jobs} == {("CAAP", 40), ("E-CAAP", 10)} and len(jobs) == 2 * 4
    assert jobs[0].tables == {1: 40, 10: 10, 12: 40}
    assert {job.images for job in table_jobs(settings, SIZES, {"ImageNet-1K": 5})} == {5}
    listed = replace(settings, image_lists={"ImageNet-1K": "list.txt"}, data={"ImageNet-1K": "imagenet:x"})
    assert {job.images for job in table_jobs(listed, SIZES, {"ImageNet-1K": 300})} == {300}
    report = cost_report(replace(settings, without=LARGE[1:]), {}, {}, timing=False)
    assert [share.name for share in report.tables] == ["table 1", "table 10", "table 12"]
    whole = report.models[0].passes
    assert sum(one.passes for one in report.methods) == whole and sum(one.share for one in report.methods) == 1
    assert report.tables[0].share == report.tables[0].shared == report.tables[2].share  # CAAP alone, in both
    assert not report.in_time and report.models[0].seconds is None and report.memory == ()


def test_sweeps_share_their_default() -> None:
    settings = PaperSettings(tables=(1, 2), images={"faithfulness": 3, "localisation": 2}, protocol="chefer")
    sweeps = [
        (name, need) for name, values in (("a", ("x", "y")), ("b", ())) for need in sweep_needs((1, 2), "z", values)
    ]
    blocks = dict.fromkeys(SIZES, 4)
    jobs = [job for job in sweep_jobs(sweeps, settings, SIZES, blocks, {}) if job.model == "ViT-L/16"]
    assert [(job.figure, job.dataset, job.images) for job in jobs] == [
        ("a", "ImageNet-1K", 2 * 3),
        ("a", "ImageNet-S", 2 * 2),
        ("b", "ImageNet-1K", (5 - 1) * 3),
        ("b", "ImageNet-S", (5 - 1) * 2),
    ]
    assert jobs[0].curve_passes > 0 == jobs[1].curve_passes


def test_what_saves_most() -> None:
    settings = PaperSettings(tables=(1,))
    jobs = table_jobs(settings, SIZES, {})
    found = choices(settings, jobs, SIZES, ONES)
    assert [one.name for one in found][:2] == ["--without MDA", "--protocol rise-28"] and len(found) == 3
    without = table_jobs(replace(settings, without=("MDA",)), SIZES, {})
    quick = table_jobs(replace(settings, protocol="rise-28"), SIZES, {})
    for share, rest in zip(found, (without, quick), strict=False):
        assert share.share == pytest.approx(1 - cost_of(rest, ONES) / cost_of(jobs, ONES))
    slow = {**ONES, "CLIP-L/14": 50.0}
    assert choices(settings, jobs, SIZES, slow, {"bfloat16": 0.01})[0].name == "--precision bfloat16"
    assert "--without CLIP-L/14" in [one.name for one in choices(settings, jobs, SIZES, slow)]
    assert disk_bytes(jobs) == len(LARGE) * 10 * 500 * (600 + 4 * 64 + 16 * 65)


def test_gpus_tell_memory_and_other_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a GPU had been measured: bfloat16 four times as quick, and TF32 not there."""

    def measured(body, size, device, precision="float32", batch_size=64):
        if precision == "tf32":
            raise cl.InputError("none")
        return Measured(0.4 if precision == "float32" else 0.1, 2 * 2**30, 2**28)

    monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(module, "free_memory", lambda device: 10 * 2**30)
    settings = PaperSettings(tables=(14,), without=("ResNet-50", "DenseNet-161", "VGG-16"))
    report = cost_report(settings, {}, {}, "cpu", batch_size=64)
    assert report.in_time and report.choices[0].name == "--precision bfloat16" and report.choices[0].share == 0.75
    assert report.memory == (
        "ResNet-18 needs 18.0 GB for its weights and 64 images at once, and cpu has 10.0 GB free: --batch-size 32.",
    )
    printed = "\n".join(cost_lines(report, (14,), "cuda", "float32", timed=True))
    assert "Cost of table 14 in forward passes, a backward pass counted as two; time by one process on cuda" in printed
    assert "--precision bfloat16 saves 75% (see --compare for what it changes)" in printed
    assert "of all time" in printed and "\n  table  " not in printed and all(len(x) < 121 for x in printed.splitlines())


def test_durations() -> None:
    assert [duration(s) for s in (None, 5, 600, 8000, 1e6)] == ["", "5 s", "10 min", "2.2 h", "12 days"]
