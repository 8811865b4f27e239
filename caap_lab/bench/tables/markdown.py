"""A benchmark's table as Markdown: our numbers, the paper's next to them if there are any, and the protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caap_lab.bench.tables.cells import Cells, Column, Kind
from caap_lab.escaping import for_markdown

if TYPE_CHECKING:
    from caap_lab.bench.tables.table import Table

_BESIDE: tuple[Kind, ...] = ("mean", "published", "z")


def markdown_table(table: "Table") -> str:
    """A table with its title, its agreement with the paper, differences to CAAP, and notes."""
    cells = table.cells
    parts = [f"## {for_markdown(table.title)}", *map(for_markdown, table.agreement)]
    parts.append(_beside_published(cells) if cells.beside_published else _methods_by_columns(cells, "mean"))
    if table.frame["difference"].notna().any():
        parts += ["Minus CAAP, paired over the same images:", _methods_by_columns(cells, "difference")]
    rest = [line for line in table.protocol if line not in table.agreement]
    return "\n\n".join([*parts, *map(for_markdown, rest)]) + "\n"


def _methods_by_columns(cells: Cells, kind: Kind) -> str:
    """One row per method, and one column per metric of each model."""
    columns = [(*group, metric) for group in cells.groups for metric in cells.metrics(group)]
    said = cells.head if kind == "mean" else cells.name
    heads = [f"{said((data, model))} {cells.columns[metric].label}" for data, model, metric in columns]
    rows = [[for_markdown(m), *(_marked(cells, kind, column, m) for column in columns)] for m in cells.methods]
    return _table(["Method", *map(for_markdown, heads)], [row for row in rows if any(row[1:])], texts=1)


def _beside_published(cells: Cells) -> str:
    """One row per model and method, and three columns per metric: ours, the paper's and z."""
    metrics = list(dict.fromkeys(metric for group in cells.groups for metric in cells.metrics(group)))
    labels = [for_markdown(cells.columns[metric].label) for metric in metrics]
    heads = ["Model", "Method", *(head for label in labels for head in (label, f"{label} published", "z"))]
    rows = []
    for data, model in cells.groups:
        first = for_markdown(cells.head((data, model)))
        for method in cells.methods:
            row = [_marked(cells, kind, (data, model, metric), method, True) for metric in metrics for kind in _BESIDE]
            if any(row):
                rows.append([first, for_markdown(cells.row_head((data, model), method)), *row])
    return _table(heads, rows, texts=2)


def _marked(cells: Cells, kind: Kind, column: Column, method: str, below_row_head: bool = False) -> str:
    text = cells.text(kind, column, method, below_row_head)
    return f"**{text}**" if kind == "mean" and cells.is_best(column, method) else text


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """Lines of a table with text in the first columns and numbers in the others."""
    rule = f"|{'---|' * texts}{'---:|' * (len(heads) - texts)}"
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])
