"""LaTeX of tables: its structure, how it is split to fit pages, and what stands in captions and in comments."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from caap_lab.bench.paper.parts import DATASETS, group_of
from caap_lab.bench.paper.published import METHODS as PAPERS
from caap_lab.bench.paper.published import names
from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.bench.tables.latex_names import short_names, without_paths
from caap_lab.bench.tables.table import Table, make_tables, write_tables
from caap_lab.variant import parse_variant
from helpers.filled_runs import filled

MODELS = (
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    *(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    "/home/someone/my models/own & best",
    "resnet18",
)
METHODS = (
    "caap",
    "CAAP, 50 % ±=caap:layers=3",
    "grad_cam",
    "rollout",
    "\u03b1_2\u2212b=caap:layers=2",
    "[first]=tam",
    "名=mda",
)
SOURCE = "folder:/home/someone/my photos/val_1?labels=/etc/labels.json"


def plan_of(models: tuple[str, ...] = MODELS, source: str = SOURCE) -> BenchmarkPlan:
    specs = tuple(map(parse_variant, models)), tuple(map(parse_variant, METHODS))
    return BenchmarkPlan((Study(Data(source, ("a", "b"), "all"), *specs, ("faithfulness",)),))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    (table,) = make_tables(filled(plan_of(), tmp_path_factory.mktemp("runs") / "run"))
    return table


def check(latex: str) -> None:
    """Braces and environments are closed, and every row has as many cells as its tabular has columns."""
    text = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    plain = re.sub(r"\\[\\{}]", "", text)
    assert plain.count("{") == plain.count("}")
    opened: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        if what == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened and "Table 1: Table" not in latex
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l+r+)\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        for line in body.splitlines():
            if line.endswith(r" \\"):
                wide = re.findall(r"\\multicolumn\{(\d+)\}", line)
                cells = len(re.findall(r"(?<!\\)&", line)) + 1 - len(wide) + sum(map(int, wide))
                assert cells <= len(columns) and (cells == len(columns) or "Method" in line or "$" in line or wide)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\caption[")
    assert len(re.findall(r"\\label", text)) == 1
    for word in re.findall(r"[^\x00-\x7f]", text):
        assert word in "éüß", word


def test_many_models_are_split_by_family(table: Table) -> None:
    latex = table.latex()
    check(latex)
    tops = [line for line in latex.splitlines() if line.startswith(r" & \multicolumn")]
    names = [re.findall(r"\{c\}\{([^}]*?)\\_", line) for line in tops]
    assert [len(set(row)) for row in names if row] and all(len(set(row)) <= 1 for row in names)
    assert sum(line.count("multicolumn") for line in tops) == len(MODELS)
    assert latex.count(r"\begin{table*}") == latex.count(r"\addtocounter{table}{-1}") + 1 == 2
    assert "(1 of 2)" in latex and "(2 of 2)" in latex
    assert latex.count(r"\begin{minipage}") == 1  # what they rest on is said once


def test_paths_stand_in_comments_only(table: Table) -> None:
    latex = table.latex()
    comments = [line for line in latex.splitlines() if line.startswith("%")]
    assert f"% data: {SOURCE}, images: all; explained class: the model's own prediction." in comments
    assert any("/home/someone/my models/own & best (weights abc)" in line for line in comments)
    rest = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert "someone" not in rest and "/etc" not in rest
    assert r"\caption[{folder:val\_1?labels=labels.json (1 of 2)}]" in rest.replace(r"\allowbreak{}", "")
    assert r"{own \& best}" in rest and "Models:" not in rest  # their names are what loads them


def test_names_are_said_as_they_are(table: Table) -> None:
    latex = table.latex()
    for name in (r"CAAP, 50 \% $\pm$ &", r"$\alpha$\_2$-$b &", "{[}first] &", "(U+540D) &"):
        assert name in latex
    negative = table.frame.loc[table.frame["mean"] < 0, "mean"]
    assert f"$-${-negative.iloc[0]:.2f} $\\pm$" in latex


def test_two_models_of_one_name_are_told_apart() -> None:
    plan = plan_of(("/a/best", "/b/best", "mine=/c/best", "vit_tiny_patch16_224:checkpoint=/d/w.pth,image_size=96"))
    short = short_names(plan)
    assert [short[text] for text in ("/a/best", "/b/best", "/c/best")] == ["best", "best (2)", "best (3)"]
    assert short["vit_tiny_patch16_224:checkpoint=/d/w.pth,image_size=96"].endswith("checkpoint=w.pth,image_size=96")
    said = without_paths("1/2 of ViT-L/16, read from ~/data/x.csv and 'C:\\data\\y.csv', insertion/deletion", short)
    assert said == "1/2 of ViT-L/16, read from x.csv and 'y.csv', insertion/deletion"


def test_one_document_holds_all_tables_of_a_paper_run(tmp_path: Path) -> None:
    studies = []
    for number in (2, 3, 14):
        for data in names(number, "dataset"):
            models = tuple(parse_variant(f"{name}=demo:dtype=bfloat16") for name in names(number, "model", data))
            methods = tuple(parse_variant(f"{name}={PAPERS[name]}") for name in names(number, "method", data))
            source = f"{DATASETS[data]}:/data/{data}"
            about = Data(source, ("a", "b"), "2 of 50000, seed 0", data)
            studies.append(Study(about, models, methods, (group_of(number, data),), table=number))
    plan = BenchmarkPlan(tuple(studies), profile="paper", notes=("Left out: none.", "Table 5 is left out: no."))
    write_tables(filled(plan, tmp_path / "run"), tmp_path)
    page = (tmp_path / "tables.tex").read_text()
    assert page.startswith("\\documentclass") and page.endswith("\\end{document}\n")
    for number in (2, 3, 14):
        text = (tmp_path / f"table_{number:02d}.tex").read_text()
        check(text)
        assert text in page and rf"\label{{tab:caap-lab-{number}}}" in text and "Left out: none." in text
        assert f", beside table {number} of the paper. In percent" in text and "standard errors of the paper's" in text
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        assert body.count("ours & paper & $z$") == 3 and body.count(r"\multicolumn{10}{l}") == body.count("\\midrule")
        assert r"\resizebox{\ifdim\width>\linewidth" in text and "/data/" not in text[text.index(r"\caption") :]
        assert "Number format of all models: bfloat16." in text
    assert "Models: ResNet-18 is demo:dtype=bfloat16;" in text.replace(r"\allowbreak{}", "")
    assert "63.40 $\\pm$ 2.01" in (tmp_path / "table_02.tex").read_text()  # CAAP of ViT-L/16, as published
    assert "Table 5 is left out: no." in page and "Table 5" not in (tmp_path / "table_02.tex").read_text()
    head, _, _ = page.partition(r"\begin{document}")
    assert re.findall(r"\\usepackage(?:\[.*\])?\{(.*)\}", head) == ["geometry", "booktabs,graphicx"]


def test_a_table_of_very_many_methods_goes_on_over_pages(tmp_path: Path) -> None:
    methods = tuple(parse_variant(f"m{i}=caap:layers={1 + i % 12},batch_size={i + 1}") for i in range(70))
    study = replace(plan_of(("demo",), "demo:single").studies[0], methods=methods)
    (table,) = make_tables(filled(BenchmarkPlan((study,)), tmp_path))
    latex = table.latex()
    check(latex)
    assert latex.count(r"\begin{table*}") == 2 and latex.count("\nm") == 70
