"""Tables of a benchmark as Markdown, LaTeX, CSV and HTML: means, standard errors, best in bold, differences to CAAP."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.bench.plan import Study
from caap_lab.bench.published import METRICS, published
from caap_lab.bench.result import LOWER_IS_BETTER, BenchmarkResult
from caap_lab.errors import InputError
from caap_lab.escaping import for_html, for_latex, for_markdown
from caap_lab.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = {column: name for name, column in METRICS.items()} | {
    "pooled_ap": "mAP",
    "pointing_expected": "PG ties",
    "mass_inside": "Mass",
}
_DIGITS = 2


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
    studies: tuple[int, ...] = ()
    """Places in the plan of the studies that it shows."""

    @property
    def paths(self) -> tuple[str, str, str]:
        """Names of its files."""
        return (f"{self.name}.md", f"{self.name}.tex", f"{self.name}.csv")

    def markdown(self) -> str:
        """Means with standard errors, then differences to CAAP, then the protocol."""
        parts = [f"## {for_markdown(self.title)}", _markdown(self.frame, _mean)]
        if "published" in self.frame:
            parts += ["Published by the paper:", _markdown(self.frame, _published)]
        if self.frame["difference"].notna().any():
            parts += ["Minus CAAP, paired over the same images:", _markdown(self.frame, _difference)]
        return "\n\n".join([*parts, *map(for_markdown, self.protocol)]) + "\n"

    def latex(self) -> str:
        """A booktabs table of means with standard errors, with the protocol as its caption."""
        frame = self.frame
        columns = _columns(frame)
        several = len({model for _, model, _ in columns}) > 1 or len({data for data, _, _ in columns}) > 1
        top = [f"{data}, {model}" if several else model for data, model, _ in columns]
        spans = [(name, top.count(name)) for name in dict.fromkeys(top)]
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            f"\\caption{{{for_latex(self.title + '. ' + ' '.join(self.protocol))}}}",
            f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
            "\\toprule",
            " & ".join(["", *(f"\\multicolumn{{{count}}}{{c}}{{{for_latex(name)}}}" for name, count in spans)])
            + " \\\\",
            " & ".join(["Method", *(_SHOWN[metric] for _, _, metric in columns)]) + " \\\\",
            "\\midrule",
        ]
        for method, cells in _rows(frame, columns, _mean, lambda text: f"\\textbf{{{text}}}"):
            shown = (cell.replace("±", "$\\pm$").replace("-", "$-$", 1) for cell in cells)
            lines.append(" & ".join([for_latex(method), *shown]) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])

    def html(self, metric: str) -> str:
        """Means of one metric with standard errors, and differences to CAAP; n is told where it is not the same."""
        frame = self.frame[self.frame["metric"] == metric]
        columns = _columns(frame)
        several = len({data for data, _, _ in columns}) > 1
        heads = [f"{data}, {model}" if several else model for data, model, _ in columns]
        counts = set(frame["n"])
        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        about = f"{_SHOWN[metric]} in percent, {better} is better; mean ± standard error"
        if len(counts) == 1:
            (n,) = counts
            about += f" over {n} image{'s' * (n != 1)}"
        told = _rows(frame, columns, lambda line: "" if len(counts) == 1 else f" (n {line.n})", str)
        means = _rows(frame, columns, _mean, lambda text: f"<b>{text}</b>")
        joined = [
            (method, [cell + n for cell, n in zip(cells, ns, strict=True)])
            for (method, cells), (_, ns) in zip(means, told, strict=True)
        ]
        parts = [_html(about, heads, joined)]
        if frame["difference"].notna().any():
            differences = _rows(frame, columns, _difference, str)
            parts.append(_html("Minus CAAP, paired over the images that both have", heads, differences))
        return "".join(parts)

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
        summary = _with_published(summary, result.plan.studies)
    numbers = [study.table for study in result.plan.studies]
    groups = sorted(set(numbers)) if paper else list(range(len(numbers)))
    tables = []
    for group in groups:
        members = [i for i, number in enumerate(numbers) if number == group] if paper else [group]
        frame = summary[summary["study"].isin(members)].drop(columns="study").reset_index(drop=True)
        if frame.empty:
            continue
        data = ", ".join(dict.fromkeys(result.plan.studies[i].data.label for i in members))
        title = f"Table {group}: {data}" if paper else data
        name = f"table_{group:02d}" if paper else f"study_{group + 1}"
        protocol = _protocol(result, members)
        tables.append(Table(group if paper else 0, name, title, frame, protocol, tuple(members)))
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


def _protocol(result: BenchmarkResult, members: Sequence[int]) -> tuple[str, ...]:
    """Data, weights, versions and settings behind a table's numbers."""
    plan = result.plan
    rows = result.to_dataframe()
    rows = rows[rows["study"].isin(members)]
    good = rows[rows["error"].isna()]
    studies = [plan.studies[i] for i in members]
    lines = ["In percent, mean over images ± standard error (ddof 0); best in bold."]
    for study in studies:
        who = "the model's own prediction" if study.target == "prediction" else "the image's label"
        name = study.data.source
        if study.data.label != name:
            name = f"{study.data.label} is {name}"
        lines.append(f"{name}, images: {study.data.chosen}; explained class: {who}.")
    if any("faithfulness" in study.metrics for study in studies):
        told = ", ".join(f"{key} {value}" for key, value in plan.protocol.to_dict().items() if key != "name")
        lines.append(f"Curves: protocol {plan.protocol.name} ({told}).")
    if any("localisation" in study.metrics for study in studies):
        which = " and ".join({"target": "the target"}.get(m, m) for m in sorted(good["mask"].dropna().unique()))
        lines.append(f"Localisation: bilinear maps against the pixels of {which}; PG takes the first maximum.")
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


def _with_published(summary: "pd.DataFrame", studies: Sequence[Study]) -> "pd.DataFrame":
    known = {(p.table, p.dataset, p.model, p.method, p.metric): p for p in published()}
    found = [
        known.get((studies[line.study].table, line.data, line.model, line.method, _SHOWN[line.metric]))
        for line in summary.itertuples()
    ]
    return summary.assign(
        published=[None if p is None else p.value for p in found],
        published_se=[None if p is None else p.standard_error for p in found],
    )


Column = tuple[str, str, str]


def _columns(frame: "pd.DataFrame") -> list[Column]:
    """Data set, model and metric of each column, in order."""
    return list(dict.fromkeys(zip(frame["data"], frame["model"], frame["metric"], strict=True)))


def _rows(
    frame: "pd.DataFrame", columns: list[Column], cell: Callable[..., str], bold: Callable[[str], str]
) -> list[tuple[str, list[str]]]:
    """Methods with their cells; the best mean of a column is bold, more than one where they are equal as printed."""
    lines = {(line.data, line.model, line.metric, line.method): line for line in frame.itertuples()}
    best = {}
    for column in columns:
        means = [round(line.mean, _DIGITS) for key, line in lines.items() if key[:3] == column]
        best[column] = min(means) if column[2] in LOWER_IS_BETTER else max(means)
    rows = []
    for method in dict.fromkeys(frame["method"]):
        cells = []
        for column in columns:
            line = lines.get((*column, method))
            text = "" if line is None else cell(line)
            first = text and cell is _mean and line is not None and round(line.mean, _DIGITS) == best[column]
            cells.append(bold(text) if first else text)
        rows.append((method, cells))
    return rows


def _markdown(frame: "pd.DataFrame", cell: Callable[..., str]) -> str:
    columns = _columns(frame)
    several = len({data for data, _, _ in columns}) > 1
    heads = [f"{data}, {model} {_SHOWN[m]}" if several else f"{model} {_SHOWN[m]}" for data, model, m in columns]
    lines = [f"| Method | {' | '.join(map(for_markdown, heads))} |", f"|---|{'---:|' * len(columns)}"]
    for method, cells in _rows(frame, columns, cell, lambda text: f"**{text}**"):
        if any(cells):
            lines.append(f"| {' | '.join([for_markdown(method), *cells])} |")
    return "\n".join(lines)


def _html(caption: str, heads: Sequence[str], rows: list[tuple[str, list[str]]]) -> str:
    first = "".join(f'<th scope="col">{for_html(head)}</th>' for head in ("Method", *heads))
    lines = [
        f'<tr><th scope="row">{for_html(method)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for method, cells in rows
        if any(cells)
    ]
    return f"<table><caption>{for_html(caption)}</caption><tr>{first}</tr>{''.join(lines)}</table>"


def _mean(line: object) -> str:
    return _number(line.mean, line.se)  # type: ignore[attr-defined]


def _published(line: object) -> str:
    return _number(line.published, line.published_se)  # type: ignore[attr-defined]


def _difference(line: object) -> str:
    return _number(line.difference, line.difference_se, "+")  # type: ignore[attr-defined]


def _number(value: float | None, error: float | None, sign: str = "") -> str:
    if value is None or error is None or value != value:
        return ""
    return f"{value:{sign}.{_DIGITS}f} ± {error:.{_DIGITS}f}"
