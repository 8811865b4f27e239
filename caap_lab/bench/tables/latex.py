"""A benchmark's table as LaTeX that fits a page: booktabs, models side by side as far as they fit, the rest below.

Only booktabs and graphicx are needed. Models are split into blocks by family, blocks that exceed a page into further
floats with the same number; a table that is still too wide for a line is scaled down.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from caap_lab.bench.tables.cells import Cells, Group, Kind
from caap_lab.bench.tables.comparison import LEGEND
from caap_lab.bench.tables.latex_names import without_paths
from caap_lab.escaping import for_latex

if TYPE_CHECKING:
    from caap_lab.bench.tables.table import Table

_WIDE = 112
"""Characters of a row of blocks, with two for each gap: about the width of a page in \\footnotesize."""
_HIGH = 54
"""Lines of a float, including heads and rules."""
_HEAD = 3
"""Lines of a block in addition to its methods."""
_BESIDE: tuple[tuple[Kind, str], ...] = (("mean", "ours"), ("published", "paper"), ("z", "$z$"))
Block = tuple[list[Group], list[str]]
"""Models side by side, and methods below each other."""


def latex_table(table: "Table") -> str:
    """The float of a table, or the floats: notes are below the last one, full paths only in comments."""
    cells = table.cells
    floats = _floats(_blocks(cells, lambda text: without_paths(text, table.short)))
    said = [*table.agreement, *table.notes.data, table.notes.models, *table.notes.about]
    lines = [r"% needs \usepackage{booktabs} and \usepackage{graphicx}"]
    lines += [f"% data: {' '.join(line.split())}" for line in table.notes.data]
    lines += [f"% {' '.join(line.split())}" for line in (*table.notes.about, *table.notes.sources)]
    for place, blocks in enumerate(floats):
        more = f" ({place + 1} of {len(floats)})" if len(floats) > 1 else ""
        lines += [
            r"\begin{table*}[htbp]",
            r"\centering",
            r"\emergencystretch=3em",
            r"\setlength{\belowcaptionskip}{4pt}",
            *([r"\addtocounter{table}{-1}"] if place else []),
            _caption(table, more),
            *([] if place else [rf"\label{{{_label(table)}}}"]),
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}\renewcommand{\arraystretch}{0.9}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *_tabular(table, blocks),
            "}",
        ]
        if place == len(floats) - 1:
            notes = " ".join(_prose(table, line) for line in said if line)
            lines += [
                r"\par\smallskip",
                rf"\begin{{minipage}}{{\linewidth}}\scriptsize\raggedright {notes}\end{{minipage}}",
            ]
        lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"


def latex_document(lines: Sequence[str], tables: Sequence[str]) -> str:
    """A document that compiles without changes: some sentences, then tables."""
    head = [
        r"\documentclass[10pt,a4paper]{article}",
        r"\usepackage[margin=2cm]{geometry}",
        r"\usepackage{booktabs,graphicx}",
        r"\begin{document}",
    ]
    body = [*map(for_latex, lines), "", *(f"{table}\\clearpage\n" for table in tables)]
    return "\n".join([*head, *body, r"\end{document}"]) + "\n"


def _label(table: "Table") -> str:
    """Label for references: "tab:caap-lab-1" for the paper's tables, "tab:caap-lab-study-1" for others."""
    return f"tab:caap-lab-{table.number or table.name.replace('_', '-')}"


def _caption(table: "Table", more: str) -> str:
    """The content and how to read it; LaTeX adds "Table" and the number."""
    title = re.sub(r"^Table (\d+): (.*)", r"\2, beside table \1 of the paper", table.title)
    short = _prose(table, title + more)
    legend = (LEGEND,) if table.cells.beside_published else ()
    rest = " ".join(_prose(table, line) for line in (table.notes.reading, *legend))
    return rf"\caption[{{{short}}}]{{{short}. {rest}}}"  # braces, as names may have brackets


def _prose(table: "Table", text: str) -> str:
    """A sentence in which long names may break."""
    words = without_paths(text, table.short).split()
    parts = (_breakable(for_latex(word)) if len(word) > 16 else for_latex(word) for word in words)
    return _minus(" ".join(parts))


def _breakable(word: str) -> str:
    return re.sub(r"(\\_|[./:,=])(?=.)", r"\1\\allowbreak{}", word)


def _blocks(cells: Cells, said: Callable[[str], str]) -> list[Block]:
    """Models side by side as far as they fit; otherwise split by family if some families have several models."""
    widths = {group: _width(cells, group, said) for group in cells.groups}
    names = max(len(said(method)) for method in (*cells.methods, "Method")) + 2

    def fits(groups: list[Group]) -> bool:
        return not cells.beside_published and names + sum(widths[group] for group in groups) <= _WIDE

    rows = [list(found) for _, found in groupby(cells.groups, _family)]
    if len(rows) == len(cells.groups) or fits(cells.groups):
        rows = [cells.groups]
    blocks = []
    for row in rows:
        ways = (_split(row, count) for count in range(1, len(row) + 1))
        blocks += next(way for way in ways if all(len(part) == 1 or fits(part) for part in way))
    each = _HIGH - _HEAD
    methods = [cells.methods[start : start + each] for start in range(0, len(cells.methods), each)]
    return [(groups, some) for groups in blocks for some in methods]


def _split(groups: list[Group], count: int) -> list[list[Group]]:
    """Parts of sizes as equal as possible, the longer ones first."""
    size, longer = divmod(len(groups), count)
    starts = [place * size + min(place, longer) for place in range(count + 1)]
    return [groups[a:b] for a, b in pairwise(starts)]


def _family(group: Group) -> tuple[str, str]:
    """Data set, and the letters at the start of the model's name: "ViT", "CLIP", "deit"."""
    data, model = group
    return data, re.match(r"[^\W\d_]*", model)[0]  # type: ignore[index]  # it fits anything


def _width(cells: Cells, group: Group, said: Callable[[str], str]) -> int:
    """Characters of a model's columns."""
    columns = [(*group, metric) for metric in cells.metrics(group)]
    wide = [
        2 + max(len(cells.columns[c[2]].label), *(len(cells.text("mean", c, method)) for method in cells.methods))
        for c in columns
    ]
    return max(sum(wide), len(said(cells.head(group))) + 2)


def _floats(blocks: list[Block]) -> list[list[Block]]:
    """Blocks page by page."""
    floats: list[list[Block]] = [[]]
    lines = 0
    for block in blocks:
        high = len(block[1]) + _HEAD
        if floats[-1] and lines + high > _HIGH:
            floats.append([])
            lines = 0
        floats[-1].append(block)
        lines += high
    return floats


def _tabular(table: "Table", blocks: list[Block]) -> list[str]:
    """Blocks below each other, in common columns."""
    width, lines = _beside_published(table, blocks) if table.cells.beside_published else _plain(table, blocks)
    return [rf"\begin{{tabular}}{{l{'r' * width}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}%"]


def _plain(table: "Table", blocks: list[Block]) -> tuple[int, list[str]]:
    """The number of columns of numbers, and lines: models side by side, each block below its own heads."""
    cells, width = table.cells, 0
    lines: list[str] = []
    for groups, methods in blocks:
        columns = [(*group, metric) for group in groups for metric in cells.metrics(group)]
        spans = [(cells.head(group), len(cells.metrics(group))) for group in groups]
        lines += [r"\midrule"] * bool(lines) + _spanning(table, spans)
        lines += [_row(["Method", *(for_latex(cells.columns[column[2]].label) for column in columns)]), r"\midrule"]
        for method in methods:
            lines.append(_row([_cell(table, method), *(_number(cells, "mean", column, method) for column in columns)]))
        width = max(width, len(columns))
    return width, lines


def _beside_published(table: "Table", blocks: list[Block]) -> tuple[int, list[str]]:
    """The same with one model per block, and ours, the paper's and z of each metric, below common heads."""
    cells = table.cells
    metrics = list(dict.fromkeys(metric for group in cells.groups for metric in cells.metrics(group)))
    lines = _spanning(table, [(cells.columns[metric].label, len(_BESIDE)) for metric in metrics])
    lines.append(_row(["Method", *(head for _ in metrics for _, head in _BESIDE)]))
    width = len(metrics) * len(_BESIDE)
    for (group, *_), methods in blocks:
        name = rf"\textbf{{{_cell(table, cells.head(group))}}}"
        lines += [r"\midrule", rf"\multicolumn{{{width + 1}}}{{l}}{{{name}}} \\"]
        for method in methods:
            numbers = [_number(cells, kind, (*group, m), method, True) for m in metrics for kind, _ in _BESIDE]
            lines.append(_row([_cell(table, cells.row_head(group, method)), *numbers]))
    return width, lines


def _spanning(table: "Table", spans: Sequence[tuple[str, int]]) -> list[str]:
    """A row of heads over several columns each, with a rule below each."""
    heads, rules, start = [""], [], 2
    for text, n in spans:
        heads.append(rf"\multicolumn{{{n}}}{{c}}{{{_cell(table, text)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + n - 1}}}")
        start += n
    return [_row(heads), " ".join(rules)]


def _number(cells: Cells, kind: Kind, column: tuple[str, str, str], method: str, below_row_head: bool = False) -> str:
    text = _minus(cells.text(kind, column, method, below_row_head)).replace("±", r"$\pm$")
    return rf"\textbf{{{text}}}" if kind == "mean" and text and cells.is_best(column, method) else text


def _minus(text: str) -> str:
    """The text with minus signs instead of hyphens before numbers."""
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", text)


def _cell(table: "Table", text: str) -> str:
    return for_latex(without_paths(text, table.short))


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
