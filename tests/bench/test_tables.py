"""Tables made from a benchmark, and the profiles of the paper's tables."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caap_lab as cl
from caap_lab import cli
from caap_lab.bench.paper_parts import DATASETS, MODELS
from caap_lab.bench.paper_settings import given_settings
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.profiles import DEMO_DATASETS, demo_plan, paper_plan, stand_in
from caap_lab.bench.published import METHODS, METRICS, names, published, tables
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables import Table, make_tables, write_tables
from caap_lab.bench.trial import Row


def filled(plan: BenchmarkPlan, folder: Path, seed: int = 0) -> BenchmarkResult:
    """A run whose numbers are drawn, so that tables can be checked without computing a map."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for trial in plan.trials:
        numbers = generator.random(5)
        insertion, deletion, rest = numbers[0], numbers[1], numbers[2:]
        row: Row = {"key": trial.key, "model": trial.model.text, "method": trial.method.text, "image": trial.image}
        row |= {"fingerprint": "abc", "machine": "a machine", "versions": {"torch": "2"}}
        if "faithfulness" in trial.metrics:
            row |= {"insertion": insertion, "deletion": deletion, "insdel": insertion - deletion}
        if "localisation" in trial.metrics:
            row |= dict(zip(("aupr1", "aupr0", "pointing"), rest, strict=True)) | {"mask": "target"}
        rows.append(row)
    run = RunFolder(folder)
    run.parts.mkdir(parents=True)
    plan.save(run.plan_path)
    run.append(rows)
    return BenchmarkResult.open(folder)


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
        pages = (table.markdown(), latex.partition("begin{tabular}")[2], *map(table.html, table.columns))
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
    paths = write_tables(demo_run, tmp_path / "tables")
    assert len(paths) == 1 + 3 * 15 and all(path.exists() for path in paths)
    assert paths[0].name == "tables.md" and paths[0].read_text().count("## Demo scenes: ") == 15
    latex = (tmp_path / "tables" / "table_10.tex").read_text()
    assert latex.count("\\\\\n") == 2 + 2 and "\\textbf{" in latex and "$\\pm$" in latex
    body = latex[latex.index("\\begin{tabular}") :]
    assert {line.count("&") for line in body.splitlines() if line.startswith(("CAAP", "E-CAAP", "Method"))} == {12}
    assert not re.search(r"(?<!\\)[_%#]", latex.split("\n", 1)[1])
    with (tmp_path / "tables" / "table_03.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 10 * 3 and {line["n"] for line in lines} == {"5"}


def test_published_values_stand_beside_a_paper_run(demo_run: BenchmarkResult, tmp_path: Path) -> None:
    paper = filled(replace(under_papers_names(demo_run.plan), profile="paper"), tmp_path / "paper")
    table = make_tables(paper)[0]
    line = table.frame[(table.frame["method"] == "CAAP") & (table.frame["model"] == "ViT-L/16")]
    assert line.set_index("metric")["published"].to_dict() == {"deletion": 42.67, "insertion": 73.42, "insdel": 30.75}
    assert "Published by the paper:" in table.markdown() and "42.67 ± " in table.markdown()
    assert "published_se" in (write_tables(paper, tmp_path / "t")[3]).read_text().splitlines()[0]


def test_failed_and_missing_cells_are_told(demo_run: BenchmarkResult, tmp_path: Path) -> None:
    plan = replace(demo_run.plan, studies=demo_run.plan.studies[:1])
    run = RunFolder(tmp_path / "part")
    run.parts.mkdir(parents=True)
    plan.save(run.plan_path)
    with pytest.raises(cl.InputError, match=r"holds no finished trial yet: 0 of 200 trials are computed\."):
        make_tables(BenchmarkResult.open(run.folder))
    first, second, *_ = plan.trials
    numbers = {"insertion": 0.5, "deletion": 0.25, "insdel": 0.25}
    run.append([{"key": first.key, **numbers, "machine": "m", "versions": {}, "fingerprint": "abc"}])
    run.append([{"key": second.key, "error": "RuntimeError: no"}])
    (table,) = make_tables(BenchmarkResult.open(run.folder))
    assert "Not in the numbers: 1 failed and 198 missing trials." in table.markdown()
    assert "25.00 ± 0.00" in table.markdown()


def layouts(folder: Path) -> list[str]:
    """Small copies of two of the paper's data sets."""
    from PIL import Image

    scene = cl.demo_images("single", 1, 0)[0]
    for wnid in ("n01440764", "n01443537"):
        (folder / "val" / wnid).mkdir(parents=True)
        scene.image.save(folder / "val" / wnid / f"ILSVRC2012_val_0000000{wnid[-1]}.JPEG")
    Image.new("L", (4, 4)).save(folder / "unused.png")
    return [f"imagenet:{folder / 'val'}"]


def test_the_paper_profile_says_what_is_missing(tmp_path: Path) -> None:
    data = layouts(tmp_path)

    def plan_of(**options: object) -> BenchmarkPlan:
        return paper_plan(given_settings(data=data, **options))

    with pytest.raises(cl.InputError, match=r"table 2 there is no ImageNet-S \(--data imagenet-s:PATH\).*--tables 14"):
        plan_of(tables=[2, 14])
    with pytest.raises(cl.InputError, match=r"DINOv2-L/14 needs DINOv2's linear head.*--head DINOv2-L/14=PATH"):
        plan_of(tables=[1])
    with pytest.raises(cl.InputError, match="The paper has no table 16"):
        plan_of(tables=[16])
    with pytest.raises(cl.InputError, match="'ViT-XL' is none of the paper's names"):
        plan_of(tables=[14], models=["ViT-XL=vit_base_patch16_224"])
    plan = plan_of(tables=[14, 10], heads={"DINOv2-L/14": "head.pth"}, models=["ResNet-18=demo-cnn"])
    assert [study.table for study in plan.studies] == [10, 14]
    models = {spec.label: spec.text for study in plan.studies for spec in study.models}
    assert models["DINOv2-L/14"] == "vit_large_patch14_dinov2.lvd142m:image_size=224,head=head.pth"
    assert models["ResNet-18"] == "demo-cnn" and models["VGG-16"] == MODELS["VGG-16"]
    assert len(plan.trials) == 2 * 2 * 4 + 2 * 3 * 4  # fewer images than the paper's 500: all are taken
    assert all(study.target == "prediction" for study in plan.studies)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    few = ["--models", "demo", "--methods", "caap", "LabelledCAM=grad_cam", "--data", "demo:single", "--images", "2"]
    assert cli.main(["bench", *few, "--protocol", "xplique", "--out", out]) == 0
    assert "4 of 4 trials are computed." in capsys.readouterr().out
    assert cli.main(["bench", "--out", out]) == 0  # goes on, with nothing left to do
    assert cli.main(["tables", out]) == 0
    told = capsys.readouterr().out
    assert "| LabelledCAM |" in told and "4 files in" in told and "protocol xplique" in told
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
        "Give --models, --data as well": ["bench", "--methods", "caap", "--out", out],
        "--target does not go with --profile demo": ["bench", "--profile", "demo", "--target", "label", "--out", out],
        "--head does not go with a run without": ["bench", *few, "--head", "a=b", "--out", out],
        "--head x has to be NAME=PATH": ["bench", "--profile", "paper", "--head", "x", "--out", out],
        "is not a benchmark's folder": ["tables", str(tmp_path)],
    }.items():
        assert cli.main(arguments) == 2
        assert error in capsys.readouterr().err
