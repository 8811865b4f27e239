"""The paper's figures from stored results, and from nothing."""

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

import caap_lab as cl
from caap_lab import checkout
from caap_lab.attribution.gallery import gallery
from caap_lab.bench import benchmark
from caap_lab.bench.figures import data as figure_data
from caap_lab.bench.figures import scripts as figure_scripts
from caap_lab.bench.figures.data import FigureData
from caap_lab.bench.figures.map_figures import sheet_of_maps
from caap_lab.bench.figures.options import FigureOptions
from caap_lab.bench.figures.scripts import TABLES, check_names, figure_names, load_script, make
from caap_lab.bench.identity import identified
from caap_lab.bench.paper.profiles import demo_plan
from caap_lab.bench.run_folder import RunFolder
from caap_lab.data.image_set import ImageSet
from caap_lab.metrics.protocol import CurveProtocol

MODELS = ["demo", "demo-clip", "demo-dinov2", "demo-deit3"]

pytestmark = pytest.mark.xdist_group("figures")  # the data are made once


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FigureData:
    """A demo world of two images whose benchmark trials are drawn numbers, so that only maps and sweeps take time."""
    plan = replace(demo_plan(images=2), protocol=CurveProtocol("coarse", step=(0.0, 0.5, 1.0)))
    sources = {study.data.source for study in plan.studies}
    plan = identified(plan, {}, {source: cl.open_images(source) for source in sources}, progress=False)
    made = FigureData(plan, tmp_path_factory.mktemp("world"), {"progress": False}, sweep_images=1)
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
    run = RunFolder(made.run_folder)
    run.parts.mkdir(parents=True)
    run.append(rows)
    return made


@pytest.fixture(autouse=True)
def no_trial_is_computed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are in the folder, so that only maps and sweeps take time; the slow test starts from nothing."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(benchmark, "compute", _never)


def _never(*args: object, **options: object) -> None:
    raise AssertionError("computed again")


def test_mean_curves_are_means_of_stored_curves(data: FigureData) -> None:
    result = load_script("fig09").draw(data)
    rows = data.result([1]).to_dataframe()
    part = rows[(rows["model"] == "demo-deit3") & (rows["method"] == "TAM")]
    curves = np.stack(part["deletion_curve"].to_list())
    shown = result.data[(result.data["model"] == "demo-deit3") & (result.data["method"] == "TAM")]
    np.testing.assert_allclose(shown["mean"], curves.mean(axis=0))
    np.testing.assert_allclose(shown["se"], curves.std(axis=0) / 2**0.5)
    assert set(shown["n"]) == {2}
    curves, areas = result.figure.axes[:4], result.figure.axes[4:]
    assert [ax.get_title() for ax in curves] == [f"{name}, n = 2" for name in MODELS]
    assert result.figure.get_suptitle() == "mean ± standard error over images; protocol coarse, 8 steps"
    assert all(len(ax.lines) == 10 and "(%)" in ax.get_xlabel() for ax in curves)
    assert len(areas) == 4 and all("(%)" in ax.get_xlabel() for ax in areas)
    area = 100 * rows[(rows["model"] == "demo-deit3") & (rows["method"] == "TAM")]["deletion"].mean()
    np.testing.assert_allclose(shown["area"], area)
    (mark,) = (line for line in areas[3].lines if line.get_label() == "TAM")
    assert np.nanmin(mark.get_xdata()) == pytest.approx(area)
    front = {ax.lines[np.argmax([line.get_zorder() for line in ax.lines])].get_label() for ax in curves}
    assert front == {"CAAP"}


def test_radars_and_points_show_the_same_numbers(data: FigureData) -> None:
    result = load_script("fig10").draw(data)
    assert result.figure.get_suptitle().endswith("; protocol coarse")
    points, radars = result.figure.axes[:2], result.figure.axes[2:]
    for radar, ax, metric in zip(radars, points, ("insdel", "aupr1"), strict=True):
        assert len(radar.lines) == 10
        rings = [text for text in radar.texts if text.get_text()]
        assert rings and min(text.get_zorder() for text in rings) > max(line.get_zorder() for line in radar.lines)
        line = radar.lines[3]
        part = result.data[(result.data["metric"] == metric) & (result.data["method"] == line.get_label())]
        shown = part.set_index("model")["mean"].loc[MODELS]
        np.testing.assert_allclose(line.get_ydata()[:-1], shown)
        assert [text.get_text() for text in points[-1].get_xticklabels()] == MODELS
        marks = next(mark for mark in ax.lines if mark.get_label() == line.get_label())
        np.testing.assert_allclose(marks.get_ydata(), shown)


def test_settings_and_attention_are_drawn_from_their_own_calls(data: FigureData) -> None:
    study = data.study(1)
    model = data.model(study.models[0])
    assert isinstance(model, cl.HookedViT)
    result = load_script("fig07").draw(data)
    assert len(result.figure.axes) == 6 and set(result.data["cutoff"]) == set(range(9))
    image = data.images(study)[0].image
    curves = cl.insertion_deletion(model, image, cl.caap(model, image, cutoff=3), protocol=data.plan.protocol)
    row = result.data.query("model == 'demo' and cutoff == 3 and metric == 'insdel'").iloc[0]
    assert row["mean"] == pytest.approx(100 * curves.insdel, abs=1e-3) and row["n"] == 1
    result = load_script("fig06").draw(data)
    regions = cl.attention_regions(model, data.images(data.study(2)), progress=False)
    part = result.data.query("model == 'demo' and quantity == 'mass' and kind == 'inter-object'")
    np.testing.assert_allclose(part["mean"], regions.mean("mass", heads="mean")[regions.kinds.index("inter-object")])


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that have been saved since, by name."""
    kept: dict[str, Figure] = {}
    save_figure = figure_scripts.save_figure
    monkeypatch.setattr(
        figure_scripts,
        "save_figure",
        lambda figure, path: kept.update({path.stem: figure}) or save_figure(figure, path),
    )
    return kept


def assert_nothing_is_cut_off(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        assert f"laid out as figure {int(name[3:])} of the paper:" in figure.get_suptitle()
        left, bottom, right, top = figure.get_tightbbox().extents
        width, height = figure.get_size_inches()
        assert min(left, bottom, width - right, height - top) >= 0, name


@pytest.mark.slow  # a stopped and a second run of other figures are tested in bench/figures and bench/paper
def test_files_and_a_second_run_that_computes_nothing(
    data: FigureData, tmp_path: Path, saved: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["fig01", "fig06", "fig07", "fig08", "fig10", "tab01", "tab14"]
    written = make(names, data, tmp_path)
    assert_nothing_is_cut_off(saved)
    assert len(saved) == 5
    assert len(written) == 5 * 4 + 2 * 3 and all(path.stat().st_size > 500 for path in written)
    assert {path.suffix for path in written} == {".pdf", ".png", ".csv", ".txt", ".md", ".tex"}
    assert {"score", "row", "column"} <= set(pd.read_csv(tmp_path / "fig01.csv").columns)
    before = {path: path.read_bytes() for path in written if path.suffix in (".csv", ".md")}

    for place, name in (
        (cl.HookedViT, "forward"),
        (cl, "attention_regions"),
        (figure_data, "attribute"),
    ):
        monkeypatch.setattr(place, name, _never)
    monkeypatch.setattr(figure_scripts, "save_figure", lambda figure, path: [])  # the numbers are what is compared
    make([name for name in names if name not in ("fig07", "fig10")], replace(data), tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_table_of_several_data_sets_shows_all(data: FigureData, tmp_path: Path) -> None:
    make(["tab03"], data, tmp_path)
    frame = pd.read_csv(tmp_path / "table_03.csv")
    assert list(dict.fromkeys(frame["data"])) == ["demo:twice", "demo:bright-ink", "demo:spurious"]


def test_a_table_without_any_number_is_an_error_after_the_others(data: FigureData, tmp_path: Path, monkeypatch) -> None:
    script = load_script("tables")
    make_tables = script.make_tables
    monkeypatch.setattr(script, "make_tables", lambda result: [t for t in make_tables(result) if t.number != 14])
    with pytest.raises(cl.InputError, match=r"No trial of table 14 could be computed; the rest is in "):
        make(["tab14", "tab01"], data, tmp_path)
    assert (tmp_path / "table_01.md").exists()


def test_cells_are_looked_up_in_one_run(data: FigureData, tmp_path: Path, monkeypatch) -> None:
    runs = []
    run_plan = figure_data.run_plan
    monkeypatch.setattr(
        figure_data, "run_plan", lambda plan, *rest, **o: runs.append(plan) or run_plan(plan, *rest, **o)
    )
    make(["fig09", "fig10", "tab01", "tab14"], replace(data), tmp_path)
    assert [sorted(study.table for study in plan.studies) for plan in runs] == [[1, 4, 5, 6, 7, 8, 9, 14]]


@pytest.mark.parametrize("corner", [(0, 0), (7, 7), (3, 7)])
def test_the_arrow_of_figure_1_starts_at_the_outline_wherever_that_is(
    corner: tuple[int, int], data: FigureData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cl.AttributionMap, "rank", lambda self: np.array([corner]))
    figure = load_script("fig01").draw(data).figure
    figure.draw_without_rendering()
    (arrow,) = (artist for artist in figure.artists if isinstance(artist, ConnectionPatch))
    source, patched = figure.axes[1:3]
    assert arrow._check_xy(figure.canvas.get_renderer())  # drawn at all
    for ax, place in ((source, arrow.xy1), (patched, arrow.xy2)):
        (outline,) = ax.patches
        assert outline.get_y() < place[1] < outline.get_y() + outline.get_height()
        assert place[0] in (outline.get_x(), outline.get_x() + outline.get_width())


def test_numbers_of_maps_go_by_the_names_in_the_figure(data: FigureData) -> None:
    """Several models may come from folders of one name."""
    study = data.study(1)
    models = [replace(study.models[0], label=label) for label in ("Base", "Large")]
    few = replace(study, methods=(replace(study.methods[1], label="Mine"), study.methods[-1]))
    result = sheet_of_maps(data, few, study.data.names[0], [(model, None) for model in models])
    assert list(result.data["model"].unique()) == ["Base", "Large"]
    assert list(result.data["method"].unique()) == ["Mine", "CAAP"]


def test_maps_of_several_classes(data: FigureData) -> None:
    result = load_script("fig03").draw(data)
    assert result.data.groupby("target")["method"].nunique().to_list() == [10, 10]
    words = [text.get_text() for text in result.figure.texts]
    assert "CAAP" in words and [text for text in words if text.startswith("demo-clip")] == [
        f"demo-clip \N{MIDDLE DOT} target '{target}'" for target in result.data["target"].unique()
    ]


def test_figure_3_takes_only_photos_of_several_classes_and_says_how_many_it_looked_at(data: FigureData) -> None:
    one_class = replace(data.study(2), data=data.study(1).data)
    photos = FigureOptions(photos=one_class.data.names)
    other = replace(data, plan=replace(data.plan, studies=(one_class,)), options=photos)
    with pytest.raises(cl.InputError, match=r"demo-clip knows: searched 2 photos that --photos names of demo:single"):
        load_script("fig03").check(other)
    load_script("fig03").check(data)


def test_figures_11_to_40_name_the_target_and_need_labels(data: FigureData, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(data.study(1), methods=data.study(1).methods[:1], models=data.study(1).models[:2])
    few = replace(data, plan=replace(data.plan, studies=(study,)))
    first, second = load_script("gallery").draw(few)
    assert (first.name, second.name) == ("fig11", "fig12")
    assert list(first.data["photo"].unique()) == [study.data.names[0]] and set(first.data["model"]) == set(MODELS[:2])
    label = few.images(study)[0].label
    words = [text.get_text() for text in first.figure.texts]
    assert study.data.names[0] in words
    assert {f"{model} \N{MIDDLE DOT} target '{label}', the photo's label" for model in MODELS[:2]} <= set(words)
    monkeypatch.setattr(ImageSet, "has_labels", False)
    with pytest.raises(cl.InputError, match="--target prediction"):
        load_script("gallery").check(few)
    load_script("gallery").check(replace(few, options=FigureOptions(target="prediction")))


def test_figure_6_says_where_no_image_has_two_objects(data: FigureData) -> None:
    study = replace(data.study(2), data=data.study(1).data, models=data.study(2).models[:1])
    result = load_script("fig06").draw(replace(data, plan=replace(data.plan, studies=(study,))))
    assert result.figure.axes[0].get_title() == "demo, n = 2\nno image has two objects"
    assert "inter-object" not in [text.get_text() for text in result.figure.legends[0].get_texts()]
    assert set(result.data.loc[result.data["kind"] == "inter-object", "n"]) == {0}


def test_figures_without_a_single_trial_are_refused_in_words(data: FigureData, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, summary = data.result([1]).to_dataframe(), data.result([4, 5]).summary()
    nothing = SimpleNamespace(
        to_dataframe=lambda: rows.assign(error="failed"), summary=lambda: summary.assign(n=0, mean=np.nan, se=np.nan)
    )
    monkeypatch.setattr(FigureData, "result", lambda self, tables: nothing)
    for name, said in (("fig08", "of table 1"), ("fig10", "of tables 4 to 9")):
        with pytest.raises(cl.InputError, match=f"No trial {said} could be computed"):
            load_script(name).draw(data)


def test_galleries_of_ones_own() -> None:
    model = cl.load_model("demo")
    scenes = [scene.image for scene in cl.demo_images("single", 2, 3)]
    maps = [cl.attribute(model, scenes, method) for method in ("caap", "ixg_plus")]
    figure = gallery([list(row) for row in zip(*maps, strict=True)])
    assert isinstance(figure, Figure) and len(figure.axes) == 2 * 3
    with pytest.raises(cl.InputError, match="with the same number of maps"):
        gallery([maps[0], maps[1][:1]])


def test_names() -> None:
    assert check_names(["all"]) == [*figure_names(), *TABLES] and len(figure_names()) == 11 and len(TABLES) == 15
    assert check_names(["tab02", "fig01", "tab02"]) == ["tab02", "fig01"]
    assert check_names(["fig12", "gallery"]) == ["fig12", "gallery"]
    with pytest.raises(cl.InputError, match=r"There is no figure or table 'fig41'\. Nearest: fig40, "):
        check_names(["fig41"])


def test_scripts_say_what_they_draw_and_how_they_are_called() -> None:
    for name in (*figure_names(), "tables"):
        script = load_script(name)
        about, command = (script.__doc__ or "").split("\n\n")[:2]
        assert about and command.strip().startswith(f"python figures/{name}.py ")


def test_an_installed_package_has_the_scripts_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert figure_scripts.figures_folder() == Path(__file__).parents[2] / "figures"
    package = tmp_path / "site-packages" / "caap_lab"
    (package / "figures").mkdir(parents=True)
    (package / "figures" / "fig01.py").write_text('"""A script of the installed package."""\n')
    monkeypatch.setattr(checkout, "PACKAGE", package)
    assert figure_names() == ["fig01"]
    assert load_script("fig01").__doc__ == "A script of the installed package."


def test_wheel_takes_the_scripts() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["figures"] == "caap_lab/figures"


@pytest.mark.parametrize(
    "name, sweep, expected",
    [
        ("fig04", "sweep_blanks", {"blanks": ("white", "black", "mean", "noise", "blurred_noise")}),
        ("fig05", "sweep_neighbourhoods", {"neighbourhoods": ("none", "cross1", "box1", "box2")}),
        ("fig07", "sweep_cutoffs", {}),
    ],
)
def test_settings_are_those_of_the_paper_whatever_else_is_known(
    name: str, sweep: str, expected: dict[str, tuple[str, ...]], data: FigureData, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(model: object, images: object, target: object, **options: object) -> None:
        assert options["protocol"] == data.plan.protocol
        assert {
            key: options[key] for key in options if key.endswith("s") and key not in ("metrics", "progress")
        } == expected
        raise Stopped

    monkeypatch.setattr(cl, sweep, stop)
    with pytest.raises(Stopped):
        load_script(name).draw(data)


@pytest.mark.slow
def test_all_figures_from_nothing(tmp_path: Path) -> None:
    """Every figure and table, on two images, of which figures 11 and 12 show one each."""
    data = FigureData(demo_plan(images=2), tmp_path / "results", {"progress": False}, sweep_images=1)
    assert len(make(["all"], data, tmp_path)) == 4 * (10 + 2) + 3 * len(TABLES)
