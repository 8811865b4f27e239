"""The numbers printed in the paper's tables 1 to 15 (arXiv 2603.13652), and the names it uses."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from caap_lab.metrics.catalogue import BUILT_IN

METHODS = {
    "Grad-CAM": "grad_cam",
    "Rollout": "rollout",
    "T-Attr": "transformer_attribution",
    "ViT-CX": "vit_cx",
    "TAM": "tam",
    "IxG+": "ixg_plus",
    "Libra IxG+": "libra_ixg_plus",
    "MDA": "mda",
    "MUTEX": "mutex",
    "Simple Insertion": "simple_insertion",
    "Simple Deletion": "simple_deletion",
    "E-CAAP": "caap:attention=cached",
    "CAAP": "caap",
}
"""The paper's names for methods, and ours."""


@dataclass(frozen=True)
class Published:
    """One printed number, in percent, with its standard error."""

    table: int
    dataset: str
    model: str
    method: str
    metric: str
    value: float
    standard_error: float


@cache
def published() -> tuple[Published, ...]:
    """All numbers of tables 1 to 15, in the paper's order."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                int(row["table"]),
                row["dataset"],
                row["model"],
                row["method"],
                row["metric"],
                float(row["value"]),
                float(row["standard_error"]),
            )
            for row in csv.DictReader(file)
        )


def tables() -> list[int]:
    """Numbers of the tables."""
    return sorted({row.table for row in published()})


def names(table: int, what: str, dataset: str | None = None) -> list[str]:
    """The datasets, models, methods or metrics of a table, in the paper's order."""
    rows = (row for row in published() if row.table == table and dataset in (None, row.dataset))
    return list(dict.fromkeys(getattr(row, what) for row in rows))


METRICS = {
    column.label: column.name
    for metric in BUILT_IN
    for column in metric.columns
    if column.label in {row.metric for row in published()}
}
"""The paper's names for the metrics that it prints, and the columns of our results."""
