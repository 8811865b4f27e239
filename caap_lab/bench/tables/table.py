"""Tables of a benchmark as Markdown, LaTeX, CSV and HTML: means, standard errors, best in bold, differences to CAAP.

For the paper profile, the published numbers are next to ours, with the difference in standard errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.bench.paper.published import METRICS
from caap_lab.bench.paper.published import tables as paper_tables
from caap_lab.bench.plan import BenchmarkPlan, Data
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.tables.cells import Cells, Group, Kind
from caap_lab.bench.tables.comparison import FAR, LEGEND, agreement, comparison, with_published
from caap_lab.bench.tables.latex import latex_document, latex_table
from caap_lab.bench.tables.latex_names import short_names
from caap_lab.bench.tables.markdown import markdown_table
from caap_lab.bench.tables.notes import Notes, notes_of, tables_left_out, usual_images
from caap_lab.errors import InputError
from caap_lab.escaping import for_html, for_markdown
from caap_lab.files import atomic_path, check_folder
from caap_lab.labels import counted
from caap_lab.metrics.metric import PERCENT, MetricColumn
from caap_lab.tables.html import html_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Table:
    """One table of the paper, or one study of another run."""

    number: int
    """Number of the paper's table, or 0."""
    name: str
    """Name of its files: "table_01", "study_1"."""
    title: str
    frame: "pd.DataFrame"
    """`BenchmarkResult.summary`'s lines; for the paper profile with published, published_se, minus_published and z."""
    notes: Notes
    """Notes in sentences."""
    columns: Mapping[str, MetricColumn]
    """Labels of its metrics, which values are better, and their units, by the frame's column `metric`."""
    studies: tuple[int, ...] = ()
    """Indices of its studies in the plan."""
    usual: Mapping[str, int] = field(default_factory=dict)
    """Number of images of the paper's table, by data set."""
    short: Mapping[str, str] = field(default_factory=dict)
    """Names that contain paths of this machine, and their short forms for a printed page."""

    @cached_property
    def cells(self) -> Cells:
        """Its cells as text."""
        return Cells(self.frame, self.columns, self.usual)

    @cached_property
    def agreement(self) -> tuple[str, ...]:
        """Its agreement with the paper's table, in sentences; empty if nothing is published."""
        return agreement(self.frame, self.columns) if self.cells.beside_published else ()

    @property
    def protocol(self) -> tuple[str, ...]:
        """Notes about the numbers, in sentences."""
        legend = (LEGEND,) if self.cells.beside_published else ()
        notes = self.notes
        return (notes.reading, *legend, *self.agreement, *notes.data, *notes.about, *notes.sources)

    def markdown(self) -> str:
        """Means with standard errors, with the paper's next to them; then differences to CAAP, and the protocol."""
        return self._markdown

    def latex(self) -> str:
        """Booktabs tables that fit a page, each with its caption and a label; they need booktabs and graphicx."""
        return self._latex

    @cached_property
    def _markdown(self) -> str:
        return markdown_table(self)

    @cached_property
    def _latex(self) -> str:
        return latex_table(self)

    def html(self, metric: str) -> str:
        """Means of one metric with standard errors, the paper's, and differences to CAAP."""
        cells = Cells(self.frame[self.frame["metric"] == metric], self.columns, self.usual)
        shown = self.columns[metric]
        unit = " in percent" if shown.unit == PERCENT else f" in {shown.unit}" if shown.unit else ""
        about = f"{shown.label}{unit}, {shown.better} is better; mean ± standard error"
        about += f" over {counted(cells.common, 'image')}"
        if cells.counts_differ:
            about += ", or n where it is given"
        kinds: tuple[Kind, ...] = ("mean",)
        if cells.beside_published:
            kinds = ("mean", "published", "z")
            about += "; z is the difference to the published number in standard errors"
        parts = [_html(about, cells, metric, kinds)]
        if cells.frame["difference"].notna().any():
            parts.append(_html("Minus CAAP, paired over the images that both have", cells, metric, ("difference",)))
        return "".join(parts)

    @property
    def paths(self) -> tuple[str, str, str]:
        """Names of its files."""
        return (f"{self.name}.md", f"{self.name}.tex", f"{self.name}.csv")

    def write(self, folder: Path) -> list[Path]:
        """Write all three files."""
        texts = (self.markdown(), self.latex(), self.frame.to_csv(index=False))
        return [_write(folder / name, text) for name, text in zip(self.paths, texts, strict=True)]

    def _repr_markdown_(self) -> str:
        return self.markdown()


def make_tables(result: BenchmarkResult) -> list[Table]:
    """The paper's tables for a run of a profile, otherwise one table per study.

    Raises:
        InputError: nothing is computed yet.
    """
    plan = result.plan
    summary = result.summary()
    summary = summary[summary["n"] > 0]
    if summary.empty:
        raise InputError(f"{result.folder} contains no finished trial yet: {result.progress}")
    by_paper = plan.profile != ""
    if by_paper:  # only its three metrics
        summary = summary[summary["metric"].isin(METRICS.values())]
    numbers = [study.table for study in plan.studies]
    if plan.profile == "paper":
        summary = with_published(summary, numbers, result.columns)
    short = short_names(plan)
    tables = []
    for group in sorted(set(numbers)) if by_paper else range(len(numbers)):
        members = [i for i, number in enumerate(numbers) if number == group] if by_paper else [group]
        frame = summary[summary["study"].isin(members)].drop(columns="study").reset_index(drop=True)
        if frame.empty:
            continue
        studies = [plan.studies[i] for i in members]
        usual = usual_images(studies) if plan.profile == "paper" else {}
        tables.append(
            Table(
                number=group if by_paper else 0,
                name=f"table_{group:02d}" if by_paper else f"study_{group + 1}",
                title=_title(plan, group, [study.data for study in studies]),
                frame=frame,
                notes=notes_of(result, members, Cells(frame, result.columns, usual)),
                columns=result.columns,
                studies=tuple(members),
                usual=usual,
                short=short,
            )
        )
    return tables


def write_tables(result: BenchmarkResult, folder: str | Path) -> list[Path]:
    """Write all tables as Markdown, LaTeX and CSV.

    In addition to each table's own files, one page with all of them, `tables.md`, a document with all of them that
    LaTeX compiles, `tables.tex`, and for the paper profile `comparison.csv`: every published number and ours.

    Returns:
        The files, `tables.md` first.

    Raises:
        InputError: nothing can be written into the folder.
    """
    folder = Path(folder)
    check_folder(folder)
    tables = make_tables(result)
    head = _of_all(result, tables)
    markdown = [*(f"{for_markdown(line)}\n" for line in head), *(table.markdown() for table in tables)]
    pages = [_write(folder / "tables.md", "\n".join(markdown))]
    pages.append(_write(folder / "tables.tex", latex_document(head, [table.latex() for table in tables])))
    if any(table.cells.beside_published for table in tables):
        found = comparison({table.number: table.frame for table in tables}, result.columns)
        pages.append(_write(folder / "comparison.csv", found.to_csv(index=False)))
    return [*pages, *(path for table in tables for path in table.write(folder))]


def _of_all(result: BenchmarkResult, tables: Sequence[Table]) -> list[str]:
    """The agreement of all tables of the paper profile together, and which of the paper's tables are missing."""
    if result.plan.profile != "paper":
        return []
    z = [value for table in tables for value in table.frame["z"].dropna()]
    near = sum(abs(value) <= FAR for value in z)
    lines = [f"In all tables, {near} of {len(z)} cells lie within {FAR:g} standard errors of the paper's numbers."]
    missing = sorted({*paper_tables()} - {table.number for table in tables})
    if missing:
        s = "s" * (len(missing) > 1)
        lines.append(f"Not here: table{s} {', '.join(map(str, missing))} of the paper.")
    return [*lines, *(note for note in result.plan.notes if tables_left_out(note))]


def _write(path: Path, text: str) -> Path:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _title(plan: BenchmarkPlan, number: int, data: Sequence[Data]) -> str:
    """Title of a table; data that replaces the paper's has its own name."""
    if plan.profile == "demo":
        kinds = ", ".join(dict.fromkeys(one.source.partition(":")[2] for one in data))
        return f"Demo scenes: {kinds} (laid out as table {number} of the paper)"
    labels = ", ".join(dict.fromkeys(one.label for one in data))
    return f"Table {number}: {labels}" if plan.profile else labels


def _html(caption: str, cells: Cells, metric: str, kinds: Sequence[Kind]) -> str:
    heads = [_head(cells, group, kind) for group in cells.groups for kind in kinds]
    rows = []
    for method in cells.methods:
        row = []
        for group in cells.groups:
            for kind in kinds:
                column = (*group, metric)
                text = cells.text(kind, column, method)
                row.append(f"<b>{text}</b>" if kind == "mean" and cells.is_best(column, method) else text)
        if any(row):
            rows.append([for_html(method), *row])
    return html_table(["Method", *heads], rows, caption=caption)


def _head(cells: Cells, group: Group, kind: Kind) -> str:
    return cells.head(group) if kind == "mean" else cells.name(group) if kind == "difference" else kind
