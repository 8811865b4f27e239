"""Tables of a benchmark as Markdown, LaTeX, CSV and HTML: means, standard errors, best in bold, differences to CAAP."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.bench.profiles import stand_ins
from caap_lab.bench.published import METRICS, published
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.target_rule import has_probability, rule_words
from caap_lab.errors import InputError
from caap_lab.escaping import for_html, for_latex, for_markdown
from caap_lab.files import atomic_path
from caap_lab.metrics.localisation import LOCALISATION
from caap_lab.metrics.metric import PERCENT, MetricColumn, units
from caap_lab.models.targets import Logit
from caap_lab.tables.html import html_table
from caap_lab.variant import parse_variant

if TYPE_CHECKING:
    import pandas as pd


TableColumn = tuple[str, str, str]
"""Data set, model and metric."""
Kind = Literal["mean", "published", "difference"]
_NUMBERS = {
    "mean": ("mean", "se", ""),
    "published": ("published", "published_se", ""),
    "difference": ("difference", "difference_se", "+"),
}
"""Columns of a table's frame with a number and its standard error, and whether positive ones show their sign."""
_PIXELS = {
    frozenset({"target"}): "the target",
    frozenset({"all objects"}): "all objects",
    frozenset({"target", "all objects"}): "the target where its class is annotated, else of all objects",
}
"""Which object's pixels maps are compared with, by what rows say about it."""


@dataclass(frozen=True, eq=False)
class Table:
    """One table of the paper, or one study of another run."""

    number: int
    """Of the paper's table, or 0."""
    name: str
    """Of its files: "table_01", "study_1"."""
    title: str
    frame: "pd.DataFrame"
    """`BenchmarkResult.summary`'s lines; `published` and `published_se` beside them for the paper profile."""
    protocol: tuple[str, ...]
    """What the numbers rest on, in sentences."""
    columns: Mapping[str, MetricColumn]
    """What its metrics are called, which values are better, and their units, by the frame's column `metric`."""
    studies: tuple[int, ...] = ()
    """Places in the plan of the studies that it shows."""

    @property
    def paths(self) -> tuple[str, str, str]:
        """Names of its files."""
        return (f"{self.name}.md", f"{self.name}.tex", f"{self.name}.csv")

    def markdown(self) -> str:
        """Means with standard errors, then differences to CAAP, then the protocol."""
        parts = [f"## {for_markdown(self.title)}", self._markdown("mean")]
        if "published" in self.frame:
            parts += ["Published by the paper:", self._markdown("published")]
        if self.frame["difference"].notna().any():
            parts += ["Minus CAAP, paired over the same images:", self._markdown("difference")]
        return "\n\n".join([*parts, *map(for_markdown, self.protocol)]) + "\n"

    def latex(self) -> str:
        """A booktabs table of means with standard errors, with the protocol as its caption."""
        import pandas as pd

        columns = _columns(self.frame)
        several = len({model for _, model, _ in columns}) > 1 or len({data for data, _, _ in columns}) > 1
        tops = [f"{data}, {model}" if several else model for data, model, _ in columns]
        heads = [
            (for_latex(top), for_latex(self.columns[m].label)) for top, (_, _, m) in zip(tops, columns, strict=True)
        ]
        rows = self._rows("mean", columns, lambda text: f"\\textbf{{{text}}}")
        cells = pd.DataFrame(
            [[cell.replace("±", "$\\pm$").replace("-", "$-$", 1) for cell in cells] for _, cells in rows],
            index=[for_latex(method) for method, _ in rows],
            columns=pd.MultiIndex.from_tuples(heads, names=["", "Method"]),
        )
        return "% needs \\usepackage{booktabs}\n" + cells.style.to_latex(
            caption=for_latex(self.title + ". " + " ".join(self.protocol)),
            column_format="l" + "r" * len(columns),
            multicol_align="c",
            hrules=True,
        )

    def html(self, metric: str) -> str:
        """Means of one metric with standard errors, and differences to CAAP; n stands where it is not the same."""
        frame = self.frame[self.frame["metric"] == metric]
        columns = _columns(frame)
        several = len({data for data, _, _ in columns}) > 1
        heads = [f"{data}, {model}" if several else model for data, model, _ in columns]
        counts = set(frame["n"])
        shown = self.columns[metric]
        unit = " in percent" if shown.unit == PERCENT else f" in {shown.unit}" if shown.unit else ""
        about = f"{shown.label}{unit}, {shown.better} is better; mean ± standard error"
        if len(counts) == 1:
            (n,) = counts
            about += f" over {n} image{'s' * (n != 1)}"
        means = self._rows("mean", columns, lambda text: f"<b>{text}</b>", with_n=len(counts) > 1)
        parts = [_html(about, heads, means)]
        if frame["difference"].notna().any():
            differences = self._rows("difference", columns)
            parts.append(_html("Minus CAAP, paired over the images that both have", heads, differences))
        return "".join(parts)

    def _markdown(self, kind: Kind) -> str:
        columns = _columns(self.frame)
        several = len({data for data, _, _ in columns}) > 1
        tops = [f"{data}, {model}" if several else model for data, model, _ in columns]
        heads = [f"{top} {self.columns[m].label}" for top, (_, _, m) in zip(tops, columns, strict=True)]
        lines = [f"| Method | {' | '.join(map(for_markdown, heads))} |", f"|---|{'---:|' * len(columns)}"]
        for method, cells in self._rows(kind, columns, lambda text: f"**{text}**"):
            if any(cells):
                lines.append(f"| {' | '.join([for_markdown(method), *cells])} |")
        return "\n".join(lines)

    def _rows(
        self, kind: Kind, columns: list[TableColumn], bold: Callable[[str], str] = str, with_n: bool = False
    ) -> list[tuple[str, list[str]]]:
        """Methods with their cells; the best means of a column, equal as they are printed, are bold.

        Args:
            kind: Which numbers.
            columns: Data set, model and metric of each column.
            bold: Marks the best means.
            with_n: Add the number of images to each cell.
        """
        value, error, sign = _NUMBERS[kind]
        lines = {
            (line["data"], line["model"], line["metric"], line["method"]): line
            for line in self.frame.to_dict("records")
        }
        best = {}
        if kind == "mean":
            for column in columns:
                means = [self._printed(line) for place, line in lines.items() if place[:3] == column]
                best[column] = min(means) if self.columns[column[2]].better == "lower" else max(means)
        rows = []
        for method in dict.fromkeys(self.frame["method"]):
            cells = []
            for column in columns:
                line = lines.get((*column, method))
                if line is None:
                    cells.append("")
                    continue
                text = self.columns[column[2]].with_error(line[value], line[error], sign)
                if text and column in best and self._printed(line) == best[column]:
                    text = bold(text)
                cells.append(f"{text} (n {line['n']})" if with_n else text)
            rows.append((method, cells))
        return rows

    def _printed(self, line: Mapping[str, Any]) -> float:
        return round(line["mean"], self.columns[line["metric"]].digits)

    def write(self, folder: Path) -> list[Path]:
        """Write all three files."""
        paths = [folder / name for name in self.paths]
        for path, text in zip(paths, (self.markdown(), self.latex(), self.frame.to_csv(index=False)), strict=True):
            with atomic_path(path) as part:
                part.write_text(text, encoding="utf-8")
        return paths

    def _repr_markdown_(self) -> str:
        return self.markdown()


def make_tables(result: BenchmarkResult) -> list[Table]:
    """The paper's tables for a run of a profile, else one table a study.

    Raises:
        InputError: nothing is computed yet.
    """
    summary = result.summary()
    summary = summary[summary["n"] > 0]
    if summary.empty:
        raise InputError(f"{result.folder} holds no finished trial yet: {result.progress}")
    paper = result.plan.profile != ""
    if paper:  # its three metrics, not the extra ones
        summary = summary[summary["metric"].isin(METRICS.values())]
    if result.plan.profile == "paper":
        summary = _with_published(summary, result)
    numbers = [study.table for study in result.plan.studies]
    groups = sorted(set(numbers)) if paper else list(range(len(numbers)))
    tables = []
    for group in groups:
        members = [i for i, number in enumerate(numbers) if number == group] if paper else [group]
        frame = summary[summary["study"].isin(members)].drop(columns="study").reset_index(drop=True)
        if frame.empty:
            continue
        title = _title(result.plan, group, [result.plan.studies[i].data for i in members])
        name = f"table_{group:02d}" if paper else f"study_{group + 1}"
        protocol = _protocol(result, members)
        number = group if paper else 0
        tables.append(Table(number, name, title, frame, protocol, result.columns, tuple(members)))
    return tables


def write_tables(result: BenchmarkResult, folder: str | Path) -> list[Path]:
    """Write all tables as Markdown, LaTeX and CSV, and one page with all of them, `tables.md`."""
    folder = Path(folder)
    tables = make_tables(result)
    written = [path for table in tables for path in table.write(folder)]
    page = folder / "tables.md"
    with atomic_path(page) as part:
        part.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    return [page, *written]


def _title(plan: BenchmarkPlan, number: int, data: Sequence[Data]) -> str:
    """What a table shows; what stands in for the paper's data goes by its own name."""
    if plan.profile == "demo":
        kinds = ", ".join(dict.fromkeys(one.source.partition(":")[2] for one in data))
        return f"Demo scenes: {kinds} (laid out as table {number} of the paper)"
    labels = ", ".join(dict.fromkeys(one.label for one in data))
    return f"Table {number}: {labels}" if plan.profile else labels


def _protocol(result: BenchmarkResult, members: Sequence[int]) -> tuple[str, ...]:
    """Data, weights, versions and settings behind a table's numbers."""
    plan = result.plan
    rows = result.to_dataframe()
    rows = rows[rows["study"].isin(members)]
    good = rows[rows["error"].isna()]
    studies = [plan.studies[i] for i in members]
    columns = [column for study in studies for column in plan.columns(study)]
    lines = [f"{units(dict.fromkeys(columns))}, mean over images ± standard error (ddof 0); best in bold."]
    if plan.profile == "demo":
        lines += map(stand_ins, dict.fromkeys(study.table for study in studies))
    for study in studies:
        who = rule_words(study.target)
        texts = [model.label for model in study.models if model.text in plan.identity.by_contrast]
        if texts and isinstance(study.target, str):
            who += f" (of {', '.join(texts)}, whose classes are texts, against the mean of all classes)"
        name = study.data.source
        if study.data.label != name:
            name = f"{study.data.label} is {name}"
        what = "explained class" if isinstance(study.target, (str, Logit)) else "explained"
        lines.append(f"{name}, images: {study.data.chosen}; {what}: {who}.")
        if not has_probability(study.target):
            lines.append("It has no probability: curves and SaCo are of its value, and percent are hundredths of that.")
    if any(plan.reads_protocol(study) for study in studies):
        choices = ", ".join(f"{key} {value}" for key, value in plan.protocol.to_dict().items() if key != "name")
        lines.append(f"Curves: protocol {plan.protocol.name} ({choices}).")
    metrics = {text: parse_variant(text) for study in studies for text in study.metrics}
    for metric in (metric for metric in metrics.values() if metric.name == LOCALISATION.name):
        pixels = _PIXELS.get(frozenset(good["mask"].dropna()), "the object")
        maps = metric.options.get("upsampling", "bilinear")
        lines.append(f"Localisation: {maps} maps against the pixels of {pixels}; PG takes the first maximum.")
    special = [text for text, metric in metrics.items() if metric.options or text in plan.identity.metrics]
    if special:
        lines.append(f"Metrics with options or code of their own: {'; '.join(special)}.")
    specs = {model.label: model.text for study in studies for model in study.models}
    weights = good.groupby("model", sort=False)["fingerprint"].unique()
    models = []
    for label, text in specs.items():
        name = text if text == label else f"{label} is {text}"
        models.append(f"{name} (weights {', '.join(weights.get(label, ['not run']))})")
    lines.append(f"Models: {'; '.join(models)}.")
    renamed = {m.label: m.text for study in studies for m in study.methods if m.label != m.text}
    if renamed:
        lines.append(f"Methods: {'; '.join(f'{label} is {text}' for label, text in renamed.items())}.")
    versions = [", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in good["versions"].unique()]
    lines.append(f"Ran on: {'; '.join(good['machine'].unique())}. Versions: {'; '.join(versions)}.")
    failed, missing = int(rows["error"].notna().sum()), _expected(studies) - len(rows)
    if failed or missing:
        lines.append(f"Not in the numbers: {failed} failed and {missing} missing trials.")
    return (*lines, *plan.notes)


def _expected(studies: Sequence[Study]) -> int:
    return sum(len(s.models) * len(s.methods) * len(s.data.names) for s in studies)


def _with_published(summary: "pd.DataFrame", result: BenchmarkResult) -> "pd.DataFrame":
    known = {(p.table, p.dataset, p.model, p.method, p.metric): p for p in published()}
    tables = [study.table for study in result.plan.studies]
    printed = [
        known.get((tables[line.study], line.data, line.model, line.method, result.columns[line.metric].label))
        for line in summary.itertuples()
    ]
    return summary.assign(
        published=[None if p is None else p.value for p in printed],
        published_se=[None if p is None else p.standard_error for p in printed],
    )


def _columns(frame: "pd.DataFrame") -> list[TableColumn]:
    """Data set, model and metric of each column, in order."""
    return list(dict.fromkeys(zip(frame["data"], frame["model"], frame["metric"], strict=True)))


def _html(caption: str, heads: Sequence[str], rows: list[tuple[str, list[str]]]) -> str:
    shown = [[for_html(method), *cells] for method, cells in rows if any(cells)]
    return html_table(["Method", *heads], shown, caption=caption)
