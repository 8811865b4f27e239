"""The paper's figures from stored results, and from nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import caap_lab as cl
from caap_lab import cli
from caap_lab.attribution.gallery import gallery
from caap_lab.bench.profiles import demo_plan
from caap_lab.bench.run_folder import RunFolder
from caap_lab.figures import make as module
from caap_lab.figures.make import FIGURES, TABLES, check_names, make
from caap_lab.figures.world import World

pytestmark = pytest.mark.xdist_group("figures")  # the world is made once


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A demo world of two images whose benchmark trials are drawn numbers, so that only maps and sweeps take time."""
    plan = demo_plan(images=2)
    found = World(plan, tmp_path_factory.mktemp("world"), {"progress": False}, sweep_images=1)
    generator = np.random.default_rng(0)
    rows = []
    for trial in plan.trials:
        insertion, deletion = generator.random((2, 9))
        row = {"key": trial.key, "fingerprint": "abc", "machine": "a machine", "versions": {"torch": "2"}}
        if "faithfulness" in trial.metrics:
            row |= {"insertion": insertion.mean(), "deletion": deletion.mean(), "shares": list(np.linspace(0, 1, 9))}
            row |= {"insertion_curve": list(insertion), "deletion_curve": list(deletion)}
            row["insdel"] = row["insertion"] - row["deletion"]
        else:
            row |= dict(zip(("aupr1", "aupr0", "pointing"), insertion[:3], strict=True)) | {"mask": "target"}
        rows.append(row)
    run = RunFolder(found.run_folder)
    run.parts.mkdir(parents=True)
    run.append(rows)
    return found


def test_mean_curves_are_means_of_stored_curves(world: World) -> None:
    drawn = FIGURES["fig09"](world)
    rows = world.result([1]).to_dataframe()
    part = rows[(rows["model"] == "DeiT3-L/16") & (rows["method"] == "TAM")]
    curves = np.stack(part["deletion_curve"].to_list())
    found = drawn.data[(drawn.data["model"] == "DeiT3-L/16") & (drawn.data["method"] == "TAM")]
    np.testing.assert_allclose(found["mean"], curves.mean(axis=0))
    np.testing.assert_allclose(found["se"], curves.std(axis=0) / 2**0.5)
    assert set(found["n"]) == {2}
    axes = drawn.figure.axes
    assert [ax.get_title() for ax in axes] == ["ViT-L/16", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16"]
    assert all(len(ax.lines) == 10 and "(%)" in ax.get_xlabel() for ax in axes)


def test_radar_and_dots_show_the_same_numbers(world: World) -> None:
    drawn = FIGURES["fig10"](world)
    radar, dots = drawn.figure.axes
    assert len(radar.lines) == 10 and len(dots.containers) == 10
    line = radar.lines[3]
    shown = drawn.data[drawn.data["method"] == line.get_label()].set_index("model")["mean"]
    labels = [text.get_text() for text in dots.get_yticklabels()]
    np.testing.assert_allclose(line.get_ydata()[:-1], shown.loc[labels])
    assert len(labels) == 11


def test_settings_and_attention_are_drawn_from_their_own_calls(world: World) -> None:
    study = world.study(1)
    model = world.model(study.models[0])
    assert isinstance(model, cl.HookedViT)
    drawn = FIGURES["fig07"](world)
    assert len(drawn.figure.axes) == 6 and set(drawn.data["cutoff"]) == set(range(9))
    image = world.images(study)[0].image
    curves = cl.insertion_deletion(model, image, cl.caap(model, image, cutoff=3), protocol="rise-28")
    row = drawn.data.query("model == 'ViT-L/16' and cutoff == 3 and metric == 'insdel'").iloc[0]
    assert row["mean"] == pytest.approx(100 * curves.insdel, abs=1e-3) and row["n"] == 1
    drawn = FIGURES["fig06"](world)
    found = cl.attention_regions(model, world.images(world.study(2)), progress=False)
    part = drawn.data.query("model == 'ViT-L/16' and quantity == 'mass' and kind == 'inter-object'")
    np.testing.assert_allclose(part["mean"], found.mean("mass", heads="mean")[found.kinds.index("inter-object")])


def test_files_and_a_second_run_that_computes_nothing(world: World, tmp_path: Path, monkeypatch) -> None:
    names = ["fig01", "fig06", "fig08", "tab01", "tab14"]
    written = make(names, world, tmp_path)
    assert len(written) == 5 * 3 and all(path.stat().st_size > 500 for path in written)
    assert {path.suffix for path in written} == {".pdf", ".png", ".csv", ".md", ".tex"}
    assert {"score", "row", "column"} <= set(pd.read_csv(tmp_path / "fig01.csv").columns)
    before = {path: path.read_bytes() for path in written if path.suffix in (".csv", ".md")}

    def never(*args, **options):
        raise AssertionError("computed again")

    from caap_lab.bench import benchmark as run
    from caap_lab.figures import attention
    from caap_lab.figures import world as world_module

    for place, name in (
        (run, "compute"),
        (cl.HookedViT, "forward"),
        (attention, "attention_regions"),
        (world_module, "attribute"),
    ):
        monkeypatch.setattr(place, name, never)
    make(names, replace(world), tmp_path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["fig01", "fig06", "fig07", "fig08", "fig10"])
def test_nothing_is_cut_off(name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    save_figure = module.save_figure
    monkeypatch.setattr(module, "save_figure", lambda figure, path: saved.append(figure) or save_figure(figure, path))
    make([name], world, tmp_path)
    left, bottom, right, top = saved[0].get_tightbbox().extents
    width, height = saved[0].get_size_inches()
    assert min(left, bottom, width - right, height - top) >= 0


def test_a_table_of_several_data_sets_shows_all(world: World, tmp_path: Path) -> None:
    make(["tab03"], world, tmp_path)
    frame = pd.read_csv(tmp_path / "table_03.csv")
    assert list(dict.fromkeys(frame["data"])) == ["Oxford-IIIT-Pet", "ImageNet-Hard", "Food-101"]


def test_a_table_without_any_number_is_an_error_after_the_others(world: World, tmp_path: Path, monkeypatch) -> None:
    make_tables = module.make_tables
    monkeypatch.setattr(module, "make_tables", lambda result: [t for t in make_tables(result) if t.number != 14])
    with pytest.raises(cl.InputError, match=r"No trial of table 14 could be computed; the rest is in "):
        make(["tab14", "tab01"], world, tmp_path)
    assert (tmp_path / "table_01.md").exists()


def test_cells_are_looked_up_in_one_run(world: World, tmp_path: Path, monkeypatch) -> None:
    from caap_lab.figures import world as world_module

    runs = []
    run_plan = world_module.run_plan
    monkeypatch.setattr(
        world_module, "run_plan", lambda plan, *rest, **o: runs.append(plan) or run_plan(plan, *rest, **o)
    )
    make(["fig09", "fig10", "tab01", "tab14"], replace(world), tmp_path)
    assert [[study.table for study in plan.studies] for plan in runs] == [[1, 4, 6, 14]]


def test_maps_of_several_classes(world: World) -> None:
    drawn = FIGURES["fig03"](world)
    assert drawn.data.groupby("target")["method"].nunique().to_list() == [10, 10]
    titles = [ax.get_title() for ax in drawn.figure.axes]
    assert titles.count("") == 2 * 11 - 2 - 10 and "CAAP" in titles


def test_galleries_of_ones_own() -> None:
    model = cl.load_model("demo")
    scenes = [scene.image for scene in cl.demo_images("single", 2, 3)]
    maps = [cl.attribute(model, scenes, method) for method in ("caap", "ixg_plus")]
    figure = gallery([list(row) for row in zip(*maps, strict=True)])
    assert isinstance(figure, Figure) and len(figure.axes) == 2 * 3
    with pytest.raises(cl.InputError, match="as many in every row"):
        gallery([maps[0], maps[1][:1]])


def test_names_and_the_command(world: World, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_names(["all"]) == [*FIGURES, *TABLES] and len(FIGURES) == 11 and len(TABLES) == 15
    with pytest.raises(cl.InputError, match=r"There is no figure or table 'fig11'\. Nearest: fig10, fig01"):
        check_names(["fig11"])
    seen = []
    monkeypatch.setattr(module, "FIGURES", {"fig01": lambda given: seen.append(given) or FIGURES["fig01"](world)})
    arguments = ["figures", "fig01", "--images", "2", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "fig01.pdf" in capsys.readouterr().out
    assert seen[0].plan.profile == "demo" and seen[0].folder == tmp_path / "results" and seen[0].sweep_images == 8
    assert cli.main(["figures", "fig99"]) == 2
    assert cli.main(["figures", "fig01", "--profile", "paper", "--data", "imagenet:nowhere"]) == 2
    assert "The tables need ImageNet-S" in capsys.readouterr().err


@pytest.mark.slow
def test_all_figures_from_nothing(tmp_path: Path) -> None:
    """Every figure and table, on one image."""
    found = World(demo_plan(images=2), tmp_path / "results", {"progress": False}, sweep_images=1)
    assert len(make(["all"], found, tmp_path)) == 3 * (len(FIGURES) + len(TABLES))
