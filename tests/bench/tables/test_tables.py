"""Tables made from a benchmark, and the profiles of the paper's tables."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caap_lab as cl
from caap_lab import cli
from caap_lab.bench.paper.parts import DATASETS, MODELS
from caap_lab.bench.paper.profiles import DEMO_DATASETS, demo_plan, stand_in
from caap_lab.bench.paper.published import METHODS, METRICS, names, published, tables
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables.table import Table, make_tables, write_tables
from caap_lab.bench.trial import Row
from helpers.filled_runs import filled


def under_papers_names(plan: BenchmarkPlan) -> BenchmarkPlan:
    """A plan of the demo profile with the paper's names as labels."""
    studies = []
    for study in plan.studies:
        (dataset,) = (name for name, source in DEMO_DATASETS.items() if source == study.data.source)
        models = [
            replace(model, label=next(n for n in names(study.table, "model") if stand_in(n) == model.text))
            for model in study.models
        ]
        studies.append(replace(study, data=replace(study.data, label=dataset), models=tuple(models)))
    return replace(plan, studies=tuple(studies))


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    return filled(demo_plan(images=5), tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def demo_tables(demo_run: BenchmarkResult) -> list[Table]:
    return make_tables(demo_run)


def test_published_numbers_are_whole() -> None:
    assert tables() == list(range(1, 16)) and len(published()) == 1122
    for row in published():
        assert row.dataset in DATASETS and row.model in MODELS and row.method in METHODS and row.metric in METRICS
    known = {(p.table, p.dataset, p.model, p.method, p.metric): (p.value, p.standard_error) for p in published()}
    assert len(known) == 1122
    assert known[1, "ImageNet-1K", "ViT-L/16", "CAAP", "InsDel"][0] == 30.75
    assert known[2, "ImageNet-S", "DINOv2-L/14", "CAAP", "PG"][0] == 41.41
    assert known[7, "ImageNet-S", "ViT-S/16", "CAAP", "PG"][0] == 67.97


def test_the_demo_profile_has_every_table(demo_run: BenchmarkResult, demo_tables: list[Table]) -> None:
    plan = demo_run.plan
    assert sorted({study.table for study in plan.studies}) == tables()
    for study in plan.studies:
        (dataset,) = (name for name, source in DEMO_DATASETS.items() if source == study.data.source)
        assert [m.label for m in study.methods] == names(study.table, "method", dataset)
        own = [stand_in(name) for name in names(study.table, "model", dataset)]
        assert [m.text for m in study.models] == [name for name in own if name]
    assert [table.number for table in demo_tables] == tables()
    by_number = {table.number: table for table in demo_tables}
    assert by_number[3].title == "Demo scenes: twice, bright-ink, spurious (laid out as table 3 of the paper)"
    assert "Scaled down: " in by_number[1].markdown() and "Published by" not in by_number[1].markdown()


def test_stand_ins_go_by_their_own_names_and_the_caption_says_for_what(demo_tables: list[Table]) -> None:
    papers = {*DATASETS, *MODELS}
    for table in demo_tables:
        latex = table.latex() if table.number in (1, 3, 14) else ""
        latex_rows = latex.partition("begin{tabular}")[2].partition("end{tabular}")[0]
        pages = (table.markdown(), latex_rows, *map(table.html, table.columns))
        lines = [line for page in pages for line in page.splitlines() if line.startswith(("|", "<", " & ", "Method"))]
        shown = [table.title, table.frame.to_csv(), *lines]
        assert not [text for text in shown if any(name in text for name in papers)]
        (said,) = (line for line in table.protocol if line.startswith("Stand-ins: "))
        for name in (*names(table.number, "dataset"), *names(table.number, "model")):
            assert (f"{stand_in(name)} for {name}" in said) == (stand_in(name) is not None)
        assert said in pages[0] and f"laid out as table {table.number} of the paper" in (latex or table.title)


def test_folders_under_the_papers_names_are_read_under_the_stand_ins_own(
    demo_run: BenchmarkResult, tmp_path: Path
) -> None:
    """Earlier versions wrote those, and the same trials."""
    under_papers_names(demo_run.plan).save(tmp_path / "plan.json")
    found = BenchmarkPlan.load(tmp_path / "plan.json")
    assert found.studies == demo_run.plan.studies
    assert [trial.key for trial in found.trials] == [trial.key for trial in demo_run.plan.trials]
    first = demo_plan(3, [1]).trials[0]
    assert (first.model.text, first.method.text, first.key) == ("demo", "grad_cam", "59fbacb59274f3b6fe8a305b")


def test_cells_of_a_table_are_means_errors_and_differences(demo_run: BenchmarkResult, demo_tables: list[Table]) -> None:
    table = demo_tables[0]
    rows = demo_run.to_dataframe()
    rows = rows[(rows["study"] == 0) & (rows["model"] == "demo-clip")]
    values = {m: 100 * rows[rows["method"] == m]["deletion"].to_numpy() for m in METHODS if m in set(rows["method"])}
    heads, *lines = [line for line in table.markdown().splitlines() if line.startswith("|") and "---" not in line]
    column = [head.strip() for head in heads.split("|")].index("demo-clip Del")
    means = {line.split("|")[1].strip(): line.split("|")[column].strip() for line in lines[: len(values)]}
    best = min(values, key=lambda m: values[m].mean())  # the lowest deletion is the best
    for method, found in values.items():
        told = f"{found.mean():.2f} ± {found.std() / len(found) ** 0.5:.2f}"
        assert means[method] == (f"**{told}**" if method == best else told)
    after = lines[len(values) + 1 :]
    differences = {line.split("|")[1].strip(): line.split("|")[column].strip() for line in after}
    gap = values["TAM"] - values["CAAP"]
    assert differences["TAM"] == f"{gap.mean():+.2f} ± {gap.std() / len(gap) ** 0.5:.2f}" and "CAAP" not in differences


def test_files(demo_run: BenchmarkResult, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(cl.InputError, match=r"file is a file; expected a folder\. Choose another place"):
        write_tables(demo_run, tmp_path / "file")
    paths = write_tables(demo_run, tmp_path / "tables")
    assert len(paths) == 2 + 3 * 15 and all(path.exists() for path in paths)
    assert [path.name for path in paths[:2]] == ["tables.md", "tables.tex"]
    assert paths[0].read_text().count("## Demo scenes: ") == 15
    with (tmp_path / "tables" / "table_03.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 10 * 3 and {line["n"] for line in lines} == {"5"}


@pytest.fixture(scope="module")
def paper_run(demo_run: BenchmarkResult, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    """Tables 1, 3 and 10 under the paper's names, without Food-101, Grad-CAM and one of the models."""
    plan = under_papers_names(demo_run.plan)
    studies = []
    for study in plan.studies:
        if study.table in (1, 3, 10) and study.data.label != "Food-101":
            models = tuple(model for model in study.models if model.label != "DeiT3-L/16")
            methods = tuple(method for method in study.methods if method.label != "Grad-CAM")
            studies.append(replace(study, models=models, methods=methods))
    folder = tmp_path_factory.mktemp("runs") / "paper"
    return filled(replace(plan, profile="paper", studies=tuple(studies)), folder)


def test_published_values_stand_beside_a_paper_run(paper_run: BenchmarkResult, tmp_path: Path) -> None:
    table = make_tables(paper_run)[0]
    line = table.frame[(table.frame["method"] == "CAAP") & (table.frame["model"] == "ViT-L/16")].set_index("metric")
    assert line["published"].to_dict() == {"deletion": 42.67, "insertion": 73.42, "insdel": 30.75}
    ours = line.loc["insdel"]
    assert ours["minus_published"] == pytest.approx(ours["mean"] - 30.75)
    assert ours["z"] == pytest.approx((ours["mean"] - 30.75) / np.hypot(ours["se"], 1.18))
    text = table.markdown()
    head, _, *lines = [row for row in text.splitlines() if row.startswith("|")]
    assert head == (
        "| Model | Method | Del | Del published | z | Ins | Ins published | z | InsDel | InsDel published | z |"
    )
    (row,) = (row for row in lines if row.startswith("| ViT-L/16 (n 5) | CAAP |"))
    cell = f"{ours['mean']:.2f} ± {ours['se']:.2f}"
    best = table.cells.is_best(("ImageNet-1K", "ViT-L/16", "insdel"), "CAAP")
    assert row.endswith(f"| {f'**{cell}**' if best else cell} | 30.75 ± 1.18 | {ours['z']:+.1f} |")
    assert "cells lie within 2 standard errors of the paper's numbers." in text and "z is ours minus" in text
    assert "; 5 images (the paper's: 500);" in text and "Rank correlation of the methods" in text
    page = table.html("insdel")
    assert page.count(">published</th>") == page.count(">z</th>") == 3 and f"<td>{ours['z']:+.1f}" in re.sub(
        r"<td [^>]*>", "<td>", page
    )


def test_a_method_on_fewer_images_says_so_once_a_row(paper_run: BenchmarkResult) -> None:
    table = make_tables(paper_run)[0]
    frame = table.frame.copy()
    here = (frame["model"] == "ViT-L/16") & (frame["method"] == "MDA")
    frame.loc[here, "n"] = 4
    fewer = replace(table, frame=frame)
    markdown, latex = fewer.markdown(), fewer.latex()
    assert markdown.count("(n 4)") == latex.count("(n 4)") == 1
    assert "| MDA (n 4) | " in markdown and "\nMDA (n 4) & " in latex
    frame.loc[here & (frame["metric"] == "insdel"), "n"] = 3  # not the same in all columns: each says its own
    text = replace(table, frame=frame).latex()
    assert text.count("(n 4)") == 2 and text.count("(n 3)") == 1 and "MDA (n" not in text


def test_a_paper_table_says_what_is_left_out(paper_run: BenchmarkResult) -> None:
    one, three, ten = make_tables(paper_run)
    said = "Of the paper's table 1, this run leaves out the model DeiT3-L/16 and the method Grad-CAM."
    for text in (one.markdown(), one.latex()):
        assert f"{said} Bold marks the best of the methods that are here." in text
    assert "table 3, this run leaves out the data set Food-101 and the method Grad-CAM." in three.markdown()
    assert "table 10, this run leaves out the model DeiT3-L/16." in ten.markdown()
    assert "Bold marks" not in ten.markdown() and "leaves out" not in make_tables(paper_run)[0].title


def test_files_of_a_paper_run(paper_run: BenchmarkResult, tmp_path: Path) -> None:
    paths = write_tables(paper_run, tmp_path)
    assert [path.name for path in paths[:3]] == ["tables.md", "tables.tex", "comparison.csv"]
    page = paths[0].read_text()
    assert "Not here: tables 2, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15 of the paper." in page
    assert re.search(r"In all tables, \d+ of 153 cells lie within 2 standard errors", page)
    with paths[2].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(p.table in (1, 3, 10) for p in published())
    (line,) = (
        one
        for one in lines
        if (one["table"], one["model"], one["method"], one["metric"]) == ("10", "CLIP-L/14", "E-CAAP", "Ins")
    )
    assert line["n"] == "5" and float(line["ours"]) - float(line["published"]) == pytest.approx(
        float(line["difference"])
    )
    left = [one for one in lines if one["dataset"] == "Food-101"]
    assert {(one["ours"], one["n"], one["z"]) for one in left} == {("", "0", "")}
    assert left[0]["published"] == "51.84"
    with (tmp_path / "table_01.csv").open() as file:
        assert next(csv.reader(file))[-4:] == ["published", "published_se", "minus_published", "z"]


def test_failed_and_missing_cells_are_told(demo_run: BenchmarkResult, tmp_path: Path) -> None:
    plan = replace(demo_run.plan, studies=demo_run.plan.studies[:1])
    run = RunFolder(tmp_path / "part")
    run.parts.mkdir(parents=True)
    plan.save(run.plan_path)
    with pytest.raises(cl.InputError, match=r"contains no finished trial yet: 0 of 200 trials are computed\."):
        make_tables(BenchmarkResult.open(run.folder))
    first, second, *_ = plan.trials
    numbers = {"insertion": 0.5, "deletion": 0.25, "insdel": 0.25}
    run.append([{"key": first.key, **numbers, "machine": "m", "versions": {}, "fingerprint": "abc"}])
    run.append([{"key": second.key, "error": "RuntimeError: no"}])
    (table,) = make_tables(BenchmarkResult.open(run.folder))
    assert "Not in the numbers: 1 failed and 198 missing trials." in table.markdown()
    text = table.markdown()
    assert "| 25.00 |" in text and "nan" not in text  # one image has no standard error
    assert "**" not in text  # one method alone is not the best
    assert (
        f"Not finished: demo: 0 of 5 images, but 1 with {plan.studies[0].methods[0].label}; demo-clip: 0 of 5" in text
    )


def test_only_means_over_the_same_images_compete(tmp_path: Path) -> None:
    study = replace(demo_plan(3, [1]).studies[0], metrics=("faithfulness",))
    plan = BenchmarkPlan((replace(study, models=study.models[:1], methods=study.methods[:4]),))
    run = RunFolder(tmp_path)
    run.parts.mkdir()
    plan.save(run.plan_path)
    values = dict(zip((method.text for method in study.methods), (0.5, 0.500001, 0.2, 0.9), strict=False))
    rows: list[Row] = []
    for trial in plan.trials:
        if trial.method.text == study.methods[3].text and trial.image == study.data.names[0]:
            continue  # the highest mean, over fewer images
        numbers = dict.fromkeys(("insertion", "deletion", "insdel"), values[trial.method.text])
        rows.append({"key": trial.key, "machine": "m", "versions": {}, "fingerprint": "abc", **numbers})
    run.append(rows)
    (table,) = make_tables(BenchmarkResult.open(tmp_path))
    text = table.markdown()
    assert text.count("**50.00 ± 0.00**") == 4 and "**20.00 ± 0.00**" in text  # ties in insertion and InsDel
    assert "90.00 ± 0.00 (n 2)" in text and "; 3 images, or n where it is given;" in text
    assert f"Not finished: demo: 2 of 3 images with {study.methods[3].label}." in text
    assert "(n 2)" in table.latex() and "(n 2)" in table.html("insdel")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    few = ["--models", "demo", "--methods", "caap", "LabelledCAM=grad_cam", "--data", "demo:single", "--images", "2"]
    assert cli.main(["bench", *few, "--protocol", "xplique", "--out", out]) == 0
    assert "4 of 4 trials are computed." in capsys.readouterr().out
    assert cli.main(["bench", "--out", out]) == 0  # goes on, with nothing left to do
    assert cli.main(["tables", out]) == 0
    told = capsys.readouterr().out
    assert "| LabelledCAM |" in told and "5 files in" in told and "protocol xplique" in told
    assert (tmp_path / "run" / "tables" / "study_1.tex").exists()
    assert (
        cli.main(
            [
                "bench",
                "--models",
                "demo",
                "--methods",
                "grad_cam:version=x",
                "--data",
                "demo:single",
                "--images",
                "1",
                "--out",
                str(tmp_path / "bad"),
            ]
        )
        == 1
    )
    assert "failed: grad_cam:version=x of demo on single-" in capsys.readouterr().out
    for error, arguments in {
        "has no plan.json, so there is no run to resume": ["bench", "--out", str(tmp_path / "mistyped")],
        "Add --models, --data, or use --profile": ["bench", "--methods", "caap", "--out", out],
        "--target cannot be used with --profile demo": [
            "bench",
            "--profile",
            "demo",
            "--target",
            "label",
            "--out",
            out,
        ],
        "--head cannot be used with a run without": ["bench", *few, "--head", "a=b", "--out", out],
        "--head x has to be NAME=PATH": ["bench", "--profile", "paper", "--head", "x", "--out", out],
        "is not a benchmark's folder": ["tables", str(tmp_path)],
    }.items():
        assert cli.main(arguments) == 2
        assert error in capsys.readouterr().err
