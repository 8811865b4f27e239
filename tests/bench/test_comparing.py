"""Methods compared over the images that they share, against plain loops; results of several folders as one."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import caap_lab as cl
from caap_lab.bench.plan import BenchmarkPlan, Data, Identity, Study
from caap_lab.bench.run_folder import RunFolder
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.variant import parse_variant
from helpers.filled_runs import filled

METHODS = ("CAAP=caap", "grad_cam", "rollout", "tam")
IMAGES = tuple(f"photo {number}" for number in range(8))


def study(methods: tuple[str, ...] = METHODS, images: tuple[str, ...] = IMAGES, model: str = "demo") -> Study:
    return Study(Data("demo:single", images, "all"), (parse_variant(model),), tuple(map(parse_variant, methods)))


def taken_out(result: cl.BenchmarkResult, method: str, images: tuple[str, ...]) -> cl.BenchmarkResult:
    """The same without some trials."""
    run = RunFolder(result.folder)
    rows = run.rows()
    gone = (rows["method"] == method) & rows["image"].isin(images)
    for part in run.parts.iterdir():
        part.unlink()
    run.append(rows[~gone].astype(object).replace({np.nan: None}).to_dict("records"))
    return cl.BenchmarkResult.open(result.folder)


@pytest.fixture
def result(tmp_path: Path) -> cl.BenchmarkResult:
    """Four methods, of which one lacks two images."""
    whole = filled(BenchmarkPlan((study(),)), tmp_path / "run")
    return taken_out(whole, "rollout", IMAGES[:2])


def table(result: cl.BenchmarkResult, metric: str) -> dict[str, dict[str, float]]:
    """Values by method, then image."""
    frame = result.to_dataframe()
    return {method: dict(zip(part["image"], part[metric], strict=True)) for method, part in frame.groupby("method")}


@pytest.mark.parametrize("metric", ["insdel", "deletion"])
def test_differences_tests_and_verdicts_are_those_of_plain_loops(result: cl.BenchmarkResult, metric: str) -> None:
    values, found = table(result, metric), result.compare(to="caap")
    found = found[found["metric"] == metric].set_index("method")
    assert list(found.index) == ["grad_cam", "rollout", "tam"] and set(found["to"]) == {"CAAP"}
    p = {}
    for method, line in found.iterrows():
        gaps = [100 * (values[method][image] - values["CAAP"][image]) for image in values[method]]
        mean = sum(gaps) / len(gaps)
        assert line["n"] == len(gaps) == (6 if method == "rollout" else 8)
        assert line["difference"] == pytest.approx(mean)
        assert line["se"] == pytest.approx((sum((gap - mean) ** 2 for gap in gaps) / len(gaps) ** 2) ** 0.5)
        sums = [abs(np.dot(signs, gaps)) for signs in product([-1, 1], repeat=len(gaps))]
        p[method] = np.mean([one >= abs(sum(gaps)) - 1e-9 for one in sums])
        assert line["p"] == pytest.approx(p[method])
    largest = 0.0
    for place, method in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, p[method] * (3 - place)))
        assert found.loc[method, "p_holm"] == pytest.approx(largest)
    assert "not distinguishable" in found._repr_html_()


def test_better_and_worse_follow_what_the_metric_prefers(tmp_path: Path) -> None:
    result = filled(BenchmarkPlan((study(),)), tmp_path / "run")
    run = RunFolder(result.folder)
    rows = run.rows()
    for place, method in enumerate(("caap", "grad_cam", "rollout", "tam")):
        rows.loc[rows["method"] == method, ["insertion", "deletion"]] = 0.1 * (1 + place)
    for part in run.parts.iterdir():
        part.unlink()
    run.append(rows.astype(object).replace({np.nan: None}).to_dict("records"))
    result = cl.BenchmarkResult.open(result.folder)
    verdicts = result.compare("grad_cam").pivot(index="metric", columns="method", values="verdict")
    assert verdicts.loc["insertion"].to_dict() == {"CAAP": "worse", "rollout": "better", "tam": "better"}
    assert verdicts.loc["deletion"].to_dict() == {"CAAP": "better", "rollout": "worse", "tam": "worse"}
    two = result.compare("grad_cam", methods=["tam"])
    assert set(two["method"]) == {"tam"} and (two["p_holm"].fillna(0) == two["p"].fillna(0)).all()
    ranks = result.ranks().set_index(["metric", "method"])["mean_rank"]
    assert ranks["insertion"].to_dict() == {"tam": 1, "rollout": 2, "grad_cam": 3, "CAAP": 4}
    assert ranks["deletion"].to_dict() == {"CAAP": 1, "grad_cam": 2, "rollout": 3, "tam": 4}


def test_ranks_are_those_of_plain_loops_over_the_images_that_all_have(result: cl.BenchmarkResult) -> None:
    values, found = table(result, "aupr1"), result.ranks()
    found = found[found["metric"] == "aupr1"].set_index("method")
    for method in values:
        places = []
        for image in IMAGES[2:]:
            own, others = values[method][image], [values[other][image] for other in values if other != method]
            places.append(1 + sum(other > own for other in others) + sum(other == own for other in others) / 2)
        assert found.loc[method, "n"] == 6
        assert found.loc[method, "mean_rank"] == pytest.approx(np.mean(places))
        assert found.loc[method, "se"] == pytest.approx(np.std(places) / 6**0.5)
    assert found["mean_rank"].is_monotonic_increasing
    without = result.ranks(methods=["CAAP", "tam"])
    without = without[without["metric"] == "aupr1"]
    assert set(without["n"]) == {8} and set(without["method"]) == {"CAAP", "tam"}


def test_a_method_without_values_keeps_no_other_from_being_ranked(tmp_path: Path) -> None:
    result = taken_out(filled(BenchmarkPlan((study(),)), tmp_path / "run"), "tam", IMAGES)
    ranks = result.ranks()
    ranks = ranks[ranks["metric"] == "aupr1"]
    assert set(ranks[ranks["method"] != "tam"]["n"]) == {8}
    assert ranks[ranks["method"] == "tam"]["mean_rank"].isna().all()
    lines = result.compare()
    assert set(lines[lines["method"] == "tam"]["verdict"]) == {"no common images"}
    names = [text.get_text() for text in result.plot_ranks("insdel").get_yticklabels()]
    assert sorted(names) == ["CAAP", "grad_cam", "rollout"]


def test_what_is_not_there_is_refused_in_words(result: cl.BenchmarkResult) -> None:
    with pytest.raises(cl.InputError, match="to='cap' is no method of this result; it has CAAP, grad_cam"):
        result.compare(to="cap")
    with pytest.raises(cl.InputError, match=r"methods='tom' is not in this result; it has .*Nearest: tam"):
        result.ranks(methods=["tom"])
    for call in (result.compare, result.ranks, result.plot_ranks):
        with pytest.raises(cl.InputError, match="No methods were chosen; this result has CAAP"):
            call(methods=[])
    with pytest.raises(cl.InputError, match="to=None is no method of this result"):
        result.compare(to=None)  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="join needs another result, not 'run'"):
        result.join("run")  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="a list of folders, not 3"):
        cl.BenchmarkResult.open(3)  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="metric='saco' is not in this result; it has deletion"):
        result.plot_ranks("saco")
    with pytest.raises(cl.InputError, match="model='A' is not in this result; it has demo"):
        result.plot_ranks(model="A")
    two = replace(result, plan=replace(result.plan, studies=(study(), study(model="B=demo-clip"))))
    with pytest.raises(cl.InputError, match="several for model; choose model= one of demo, B"):
        two.plot_ranks()
    with pytest.raises(cl.InputError, match="No image has insdel of all methods yet"):
        two.plot_ranks(model="B")
    same = replace(result, plan=replace(result.plan, studies=(study(), study(("CAAP=caap:cutoff=2",)))))
    with pytest.raises(cl.InputError, match="'CAAP' stands for two methods in this result, caap and caap:cutoff=2"):
        same.compare()


def test_results_of_several_folders_are_read_as_one(tmp_path: Path) -> None:
    filled(BenchmarkPlan((study(METHODS[:2]),)), tmp_path / "quick")
    filled(BenchmarkPlan((study(METHODS[1:], IMAGES[:3]),)), tmp_path / "slow", seed=1)
    both = cl.BenchmarkResult.open([tmp_path / "quick", tmp_path / "slow"])
    assert both.progress == "22 of 22 trials are computed."  # grad_cam of three images counts once
    assert f"{tmp_path / 'quick'} and {tmp_path / 'slow'}" in repr(both)
    assert f"open([{str(tmp_path / 'quick')!r}, " in cl.widgets.benchmark(both).link
    found = both.compare()
    numbers = found[found["metric"] == "insdel"].set_index("method")["n"].to_dict()
    assert numbers == {"grad_cam": 8, "rollout": 3, "tam": 3}
    first = cl.BenchmarkResult.open(tmp_path / "quick").to_dataframe()
    shared = both.to_dataframe()
    shared = shared[(shared["method"] == "grad_cam") & (shared["study"] == 0)]
    np.testing.assert_array_equal(shared["insdel"], first[first["method"] == "grad_cam"]["insdel"])


def test_a_method_with_two_labels_is_one_to_compare_with(tmp_path: Path) -> None:
    other = replace(study(("CAAP=caap", "tam")), data=Data("demo:two", IMAGES, "all"))
    studies = (study(("caap", "grad_cam")), study(("CAAP=caap", "tam")), other)
    found = filled(BenchmarkPlan(studies), tmp_path / "run").compare(to="caap")
    lines = found[found["metric"] == "insdel"]
    assert list(zip(lines["data"], lines["method"], lines["to"], strict=True)) == [
        ("demo:single", "grad_cam", "caap"),
        ("demo:single", "tam", "caap"),
        ("demo:two", "tam", "CAAP"),
    ]


def test_results_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    one = BenchmarkPlan((study(),), identity=Identity({"demo": "a"}, {}, {"demo:single": {"photo 0": "a"}}))
    first = filled(one, tmp_path / "one")
    others = {
        "different protocols": replace(one, protocol=CurveProtocol("patches", step=1)),
        "The model demo was another one": replace(one, identity=replace(one.identity, models={"demo": "b"})),
        "The image of demo:single photo 0 was another one": replace(
            one, identity=replace(one.identity, images={"demo:single": {"photo 0": "b"}})
        ),
    }
    for words, plan in others.items():
        with pytest.raises(cl.InputError, match=words):
            first.join(replace(first, plan=plan, folder=tmp_path / "two"))


def test_data_sets_have_the_names_that_a_dictionary_gives_them(tmp_path: Path) -> None:
    options = {"out": tmp_path / "run", "images": 1, "metrics": ["localisation"], "progress": False}
    plain = cl.benchmark("demo", "rollout", ["demo:single", "demo:two"], **options)
    named = cl.benchmark("demo", "rollout", {"One": "demo:single", "Two": "demo:two"}, compute=False, **options)
    assert named.progress == "2 of 2 trials are computed."  # a name is no part of a trial's key
    assert list(named.summary()["data"].unique()) == ["One", "Two"]
    np.testing.assert_array_equal(named.summary()["mean"], plain.summary()["mean"])
    assert named.plot_ranks("aupr1", data="Two").get_title().endswith("n = 1")


def test_a_run_is_read_while_another_process_is_at_work(tmp_path: Path) -> None:
    def call(methods: list[str], **options) -> cl.BenchmarkResult:
        return cl.benchmark(
            "demo", methods, "demo:single", images=2, out=tmp_path / "run", protocol="patches", progress=False,
            metrics=["localisation"], **options,
        )  # fmt: skip

    for models, methods, data, empty in (
        ([], "caap", "demo:single", "models"),
        ("demo", [], "demo:single", "methods"),
        ("demo", "caap", {}, "data"),
    ):
        with pytest.raises(cl.InputError, match=f"{empty} is empty: give one"):
            cl.benchmark(models, methods, data, out=tmp_path)
    with pytest.raises(cl.InputError, match="compute=False reads the folder of a run"):
        call(["rollout"], compute=False)
    assert not (tmp_path / "run").exists()
    done = call(["rollout"])
    call(["grad_sam"])  # the folder's plan is now of this call
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with RunFolder(tmp_path / "run").locked():
        read = call(["rollout", "legrad"], compute=False)
    assert read.progress == "2 of 4 trials are computed."
    pd.testing.assert_frame_equal(read.to_dataframe(), done.to_dataframe())
    assert {path: path.read_bytes() for path in before} == before
