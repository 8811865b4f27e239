"""Figures' results: found wherever a benchmark put them, computed once, checked before anything begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import caap_lab as cl
from caap_lab.bench import benchmark
from caap_lab.bench.benchmark import resume, run_plan
from caap_lab.bench.figures import data as figure_data
from caap_lab.bench.figures.check import check_figures
from caap_lab.bench.figures.data import FigureData
from caap_lab.bench.figures.needs import Need, narrowed
from caap_lab.bench.figures.options import FigureOptions, photo_names
from caap_lab.bench.figures.scripts import make
from caap_lab.bench.paper.profiles import demo_plan
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.run_folder import RunFolder
from caap_lab.variant import parse_variant
from helpers.published_layouts import class_folders

QUICK = {"progress": False}


def quick_plan(images: int = 1, tables: tuple[int, ...] = (2,)) -> BenchmarkPlan:
    """Two models and two methods of tables without curves."""
    plan = narrowed(demo_plan(images, tables), [Need(table, "trials", n_models=2) for table in tables])
    methods = tuple(map(parse_variant, ("Rollout=rollout", "CAAP=caap")))
    return replace(plan, studies=tuple(replace(study, methods=methods) for study in plan.studies))


@pytest.fixture(scope="module")
def bench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `bench` filled."""
    folder = tmp_path_factory.mktemp("bench")
    run_plan(quick_plan(), folder, progress=False)
    return folder


def never(*args: object, **options: object) -> None:
    raise AssertionError("computed again")


# --- folders ---


def test_what_bench_computed_is_not_computed_again(
    bench_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "compute", never)
    before = (bench_folder / "plan.json").read_bytes()
    data = FigureData(quick_plan(), bench_folder, QUICK)
    assert (tmp_path / "table_02.md") in make(["tab02"], data, tmp_path)
    assert data.computed == {"trial": 0} and data.progress == f"All was in {bench_folder}."
    assert (bench_folder / "plan.json").read_bytes() == before


def test_what_figures_compute_lies_beside_it_and_bench_goes_on(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunFolder(folder).take_over(RunFolder(bench_folder))
    (folder / "plan.json").write_bytes((bench_folder / "plan.json").read_bytes())
    data = FigureData(quick_plan(images=2), folder, QUICK)
    assert len(data.result([2]).to_dataframe()) == 2 * 2 * 2
    assert data.computed == {"trial": 4} and data.progress == f"Computed 4 trials; all else was in {folder}."
    assert len(resume(folder, progress=False).to_dataframe()) == 4
    assert len(RunFolder(folder).finished()) == 8


def test_older_folders_are_read(bench_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "compute", never)
    RunFolder(tmp_path / "cells").take_over(RunFolder(bench_folder))
    for _ in range(2):
        data = FigureData(quick_plan(), tmp_path, QUICK)
        assert len(data.result([2]).to_dataframe()) == 4 and not data.computed["trial"]
    assert len(list(RunFolder(tmp_path).parts.iterdir())) == 1


# --- going on ---


def test_a_stopped_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(data: FigureData) -> Any:
        return data.sweep(cl.sweep_neighbourhoods, (1, 2), neighbourhoods=("none", "box1"))

    load, loaded = FigureData.model, []

    def stop(data: FigureData, variant: Any) -> Any:
        loaded.append(variant)
        if len(loaded) == 2:
            raise KeyboardInterrupt
        return load(data, variant)

    first = FigureData(quick_plan(), tmp_path, QUICK)
    monkeypatch.setattr(FigureData, "model", stop)
    with pytest.raises(KeyboardInterrupt):
        draw(first)
    second = FigureData(quick_plan(), tmp_path, QUICK)
    frame = draw(second)
    assert first.computed == {"sweep map": 2} and second.computed == {"sweep map": 2}
    assert list(dict.fromkeys(frame["model"])) == ["demo", "demo-clip"] and frame["steps"].isna().all()


def test_stopped_maps_and_frames_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, calls = figure_data.attribute, []

    def stop(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attribute(*args, **options)

    def draw(data: FigureData) -> None:
        study = data.study(2)
        for model in study.models:
            for method in study.methods:
                data.map(study, model, method, study.data.names[0], "label")

    monkeypatch.setattr(figure_data, "attribute", stop)
    first, second = (FigureData(quick_plan(), tmp_path, QUICK) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        draw(first)
    draw(second)
    assert (first.computed, second.computed) == ({"map": 2}, {"map": 2})


# --- before anything is computed ---


def test_models_and_photos_are_refused_before_the_first_sweep(tmp_path: Path) -> None:
    plan = quick_plan()
    broken = tuple(parse_variant(f"{name}=demo:checkpoint={tmp_path / name}") for name in ("one", "two"))
    plan = replace(plan, studies=tuple(replace(study, models=broken) for study in plan.studies))
    data = FigureData(plan, tmp_path, QUICK)
    with pytest.raises(cl.InputError) as refused:
        check_figures(data, [Need(2, "sweep", axis="blank", values=("white",))])
    assert "one: " in str(refused.value) and "two: " in str(refused.value)
    data = FigureData(quick_plan(), tmp_path, QUICK, options=FigureOptions(photos=("two-000459", "nowhere")))
    with pytest.raises(cl.InputError, match=r"--photos: there is no nowhere in demo:two\."):
        check_figures(data, [Need(2, "maps", images=1)])


@pytest.mark.parametrize("target, refused", [("label", None), ("3", None), ("aardvark", "aardvark")])
def test_targets_are_classes_of_the_models(target: str, refused: str | None, tmp_path: Path) -> None:
    data = FigureData(quick_plan(), tmp_path, QUICK, options=FigureOptions(target=target))
    if refused is None:
        check_figures(data, [Need(2, "maps", images=1)])
    else:
        with pytest.raises(cl.InputError, match=refused):
            check_figures(data, [Need(2, "maps", images=1)])


# --- photos ---


def test_photos_by_the_name_of_their_file(tmp_path: Path) -> None:
    images = cl.open_images(class_folders(tmp_path))
    first = next(iter(images)).name
    for typed in (first, f"{first}.JPEG", f"val/n01443537/{first}.JPEG"):
        assert photo_names(images, [typed]) == {typed: first}
    ending = replace(images, samples=tuple(replace(one, name=f"a/{one.name}.png") for one in images))
    for typed in (f"a/{first}.png", f"{first}.png", first):
        assert photo_names(ending, [typed]) == {typed: f"a/{first}.png"}
    assert not photo_names(ending, [f"{first}.JPEG"])
    same = replace(images, samples=tuple(replace(one, name=f"{k}/a.png") for k, one in enumerate(images)))
    with pytest.raises(cl.InputError, match=r"--photos a can be any of 4 images: 0/a\.png, 1/a\.png, 2/a\.png, "):
        photo_names(same, ["a"])


def test_chosen_photos_need_not_be_the_tables(tmp_path: Path) -> None:
    plan = quick_plan()
    names = [sample.name for sample in cl.open_images("demo:two")]
    other = next(name for name in names if name not in plan.studies[0].data.names)
    data = FigureData(plan, tmp_path, QUICK, options=FigureOptions(photos=(other,)))
    study = data.study(2)
    assert data.photos(study, 3) == [other]
    m = data.map(study, study.models[0], study.methods[1], other, "prediction")
    assert m.target_class is not None and data.computed == {"map": 1}
    data.map(study, study.models[0], study.methods[1], other)  # what the table explains, the label
    assert data.computed == {"map": 2}
