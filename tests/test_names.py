"""Names that people chose, with all signs that a format could take for its own: in plots, tables and widgets."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from nbconvert.filters.markdown_mistune import markdown2html_mistune  # as notebooks become pages

import caap_lab as cl
from caap_lab.attribution.gallery import gallery
from caap_lab.bench.figures.mean_curves import mean_curves
from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables.table import make_tables
from caap_lab.escaping import for_html, for_latex, for_markdown, for_plot
from caap_lab.plots.curves import plot_mean_curves
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import NotebookFigure
from caap_lab.variant import parse_variant
from helpers.models import build, random_images

NASTY = r"_$\a{$<b>|^~\\&%#}`c`*d*[e](f)"
"""Not closed: matplotlib refuses it as a formula."""


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    made = build("vit")
    made.model_name = NASTY
    made.class_names = [f"{NASTY} {index}" for index in range(7)]  # type: ignore[assignment]
    return made


@pytest.fixture(scope="module")
def one_map(model: cl.HookedViT) -> cl.AttributionMap:
    return replace(cl.caap(model, random_images(model, 1)), method=NASTY, settings={NASTY: NASTY})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkResult:
    """A finished run whose models, methods, data and images have such names, with drawn numbers."""
    folder = tmp_path_factory.mktemp("run") / NASTY.replace("/", "")
    models = tuple(replace(parse_variant(text), label=f"{NASTY} {text}") for text in ("demo", "demo-clip"))
    methods = tuple(replace(parse_variant(text), label=f"{NASTY} {text}") for text in ("caap", "rollout"))
    data = Data("demo:single", (f"{NASTY} 0", f"{NASTY} 1"), "all", NASTY)
    plan = BenchmarkPlan((Study(data, models, methods),))
    plan.save(folder / "plan.json")
    generator = np.random.default_rng(0)
    rows: list[Any] = []
    for trial in plan.trials:
        curves = generator.random((2, 3))
        names = ("aupr1", "aupr0", "pointing", "pointing_expected", "mass_inside")
        numbers = dict(zip(names, generator.random(5), strict=True))
        areas = {"insertion": curves[0].mean(), "deletion": curves[1].mean(), "insdel": curves[0].mean()}
        told = {"fingerprint": "abc", "machine": NASTY, "versions": {"torch": "2"}, "mask": "target"}
        lines = {"shares": [0.0, 0.5, 1.0], "insertion_curve": list(curves[0]), "deletion_curve": list(curves[1])}
        rows.append({"key": trial.key, **told, **areas, **lines, **numbers})
    RunFolder(folder).parts.mkdir()
    RunFolder(folder).append(rows[:-1])
    RunFolder(folder).append([{"key": plan.trials[-1].key, "error": f"InputError: {NASTY}"}])
    return BenchmarkResult.open(folder)


@pytest.fixture(scope="module")
def figures(
    model: cl.HookedViT, one_map: cl.AttributionMap, run: BenchmarkResult, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Figure]:
    """Every plot, by name."""
    x = random_images(model, 1)
    own = cl.caap(model, x)
    curves = replace(cl.insertion_deletion(model, x, own, protocol="patches", progress=False), method=NASTY)
    regions = cl.attention_regions(model, x, np.arange(16).reshape(4, 4) < 5, progress=False)
    sweep = cl.sweep_blanks(model, x, blanks=("white", "noise"), metrics=("faithfulness",), progress=False)
    frame = run.to_dataframe()
    axes = {
        "curves": curves.plot(),
        "regions": regions.plot(),
        "sweep": sweep.plot(),
        "named settings": replace(
            sweep, data=sweep.data.assign_coords(blank=[NASTY, f"{NASTY} 2"]), default=NASTY
        ).plot(),
        "dots": plot_points(
            run.summary().query("metric == 'insdel'"), "model", hue="method", horizontal=True, label=NASTY
        ),
        "mean curves": plot_mean_curves(mean_curves(frame[frame["error"].isna()], "insertion"), "insertion"),
    }
    axes["mean curves"].legend()
    axes["dots"].legend()
    found = {name: ax.figure for name, ax in axes.items()}
    found["map"] = one_map.plot()
    found["gallery"] = gallery([[one_map]], [NASTY], [NASTY])
    for name, view in widgets(model, run).items():
        found[name] = view.to_figure()
        view.close()
    return found


def widgets(model: cl.HookedViT, run: BenchmarkResult) -> dict[str, Any]:
    x = random_images(model, 1)
    views: dict[str, Any] = {
        "explore": cl.widgets.explore(model, x, methods=["rollout", "caap"]),
        "layer_sweep": cl.widgets.layer_sweep(model, x),
        "attention": cl.widgets.attention(model, x, np.arange(16).reshape(4, 4) < 5),
        "patch": cl.widgets.patch(model, x),
        "benchmark": cl.widgets.benchmark(run),
    }
    views["explore"].board.chosen = [1, 2]
    for view in views.values():
        view.worker.wait()
        assert view.message == ""
    return views


def test_every_plot_draws_every_name(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        figure.draw_without_rendering()  # formulas are read, and pixels are left out
        texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
        told = [text for text in texts if "<b>" in text]
        assert told, name  # each of them says a name
        for text in told:
            assert not re.search(r"(?<!\\)\$", text), (name, text)


def test_names_with_an_underscore_stay_in_legends(figures: dict[str, Figure]) -> None:
    for name in ("dots", "mean curves"):
        legend = figures[name].axes[0].get_legend()
        assert legend is not None and len(legend.get_texts()) == 2


def test_no_pdf_or_postscript_has_type_3_fonts(figures: dict[str, Figure], tmp_path: Path) -> None:
    before = {name: matplotlib.rcParams[name] for name in ("pdf.fonttype", "ps.fonttype")}
    for name, figure in figures.items():
        assert isinstance(figure, NotebookFigure), name  # which alone decides on fonts
        if name not in ("curves", "map", "gallery", "explore"):
            continue
        kept = BytesIO()
        figure.savefig(kept, format="pdf")
        assert b"/Type3" not in kept.getvalue(), name
        assert b"/FontFile2" in kept.getvalue(), name
    figures["curves"].savefig(tmp_path / "curves.eps")
    assert b"/FontType 42" in (tmp_path / "curves.eps").read_bytes()
    with PdfPages(tmp_path / "pages.pdf") as pages:  # one file, whose fonts are the user's
        pages.savefig(figures["curves"])
        pages.savefig(figures["sweep"])
    assert b"/Type3" in (tmp_path / "pages.pdf").read_bytes()
    assert {name: matplotlib.rcParams[name] for name in before} == before


class Reader(HTMLParser):
    """Text and elements of HTML, whose elements have to close each other."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.opened, self.seen = "", [], set()  # type: ignore[var-annotated]
        self.feed(page)
        assert not self.opened

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in ("br", "img"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_says_names_as_they_are(model: cl.HookedViT, run: BenchmarkResult) -> None:
    pages = {"result": run._repr_html_(), "empty": BenchmarkResult(BenchmarkPlan(()), run.folder)._repr_html_()}
    pages["table"] = make_tables(run)[0].html("insdel")
    views = widgets(model, run)
    pages["details"] = views["explore"]._details.value
    view = views["benchmark"]
    pages |= {part: getattr(view, part).value for part in ("_counts", "_failures", "_table", "_protocol")}
    for name, page in pages.items():
        read = Reader(page)
        assert NASTY in read.text, name
        assert not re.search(r"\$(?!</span>)", page), name  # Jupyter would take two of them for a formula
        if name not in ("table", "details", "_table"):  # the best and the target are in bold
            assert "b" not in read.seen, name
    for one in views.values():
        one.close()


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.replace("\\\\", ""))[1:-1]


def test_markdown_and_latex_keep_their_columns(run: BenchmarkResult) -> None:
    (table,) = make_tables(run)
    text = table.markdown()
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        assert len({len(cells(line)) for line in block.splitlines()}) == 1
    assert "<b>" not in text and "&lt;b&gt;" in text
    latex = table.latex()
    body = latex[latex.index("\\midrule") : latex.index("\\bottomrule")]
    ends = re.findall(r"^.*\\\\$", body, flags=re.MULTILINE)
    wide = [sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d+)\}", line)) for line in ends]
    counts = [len(re.findall(r"(?<!\\)&", line)) + more for line, more in zip(ends, wide, strict=True)]
    assert set(counts) == {8}  # both models have rows of their own: their names are long
    assert latex.count("{") - latex.count("\\{") == latex.count("}") - latex.count("\\}")
    for sign in ("\\textasciicircum{}", "\\textasciitilde{}", "\\textbackslash{}", "\\_", "\\%", "\\#", "\\$", "\\&"):
        assert sign in latex
    lines = [line.removesuffix("{%").removesuffix("}%") for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[#~^%]", "\n".join(lines))


def test_long_names_are_cut_to_what_fits(one_map: cl.AttributionMap) -> None:
    figure = gallery(
        [[one_map]],
        [
            "deit_tiny_patch16_224.fb_in1k",
        ],
        ["of several words, one by one"],
    )
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert titles == ["of several words, one...", "deit_tiny_patch16_224..."]


def test_the_protocol_says_which_pixels_count(run: BenchmarkResult, tmp_path: Path) -> None:
    (table,) = make_tables(run)
    assert "against the pixels of the target;" in table.markdown()
    plan = BenchmarkPlan((replace(run.plan.studies[0], models=run.plan.studies[0].models[:1]),))
    row = {"key": plan.trials[0].key, "fingerprint": "abc", "machine": "a", "versions": {}, "mask": "all objects"}
    plan.save(tmp_path / "plan.json")
    RunFolder(tmp_path).parts.mkdir()
    RunFolder(tmp_path).append(
        [row | dict.fromkeys(("insertion", "deletion", "insdel", "aupr1", "aupr0", "pointing"), 0.5)]
    )
    (table,) = make_tables(BenchmarkResult.open(tmp_path))
    assert "against the pixels of all objects;" in table.markdown()


def test_escaping() -> None:
    assert for_plot("a$b") == r"a\$b" and for_plot("plain_name") == "plain_name"
    assert for_html("<b>&\"'") == html.escape("<b>&\"'")
    assert for_markdown("vit_tiny_16") == "vit_tiny_16" and for_markdown("_a_ |\n*") == r"\_a\_ \| \*"
    assert for_latex("[a]*\\^~--") == "{[}a]{*}\\textbackslash{}\\textasciicircum{}\\textasciitilde{}-{}-"


def test_markdown_is_read_back_as_the_name() -> None:
    name = for_markdown(NASTY)
    read = Reader(markdown2html_mistune(f"| {name} | b |\n|---|---|\n| c | d |\n\n{name}"))
    assert read.text.count(NASTY) == 2
    assert read.seen == {"table", "thead", "tbody", "tr", "th", "td", "p", "span"}
