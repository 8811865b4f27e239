"""Tables 1 to 15 as Markdown, LaTeX and CSV.

python figures/tables.py --tables 1 10 --profile demo --out runs/figures
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData
from caap_lab.bench.tables.table import make_tables
from caap_lab.commands.figures import run_script


def write(data: FigureData, numbers: Sequence[int], out: Path) -> list[Path]:
    """Write tables by their numbers in the paper; returns the files.

    Raises:
        InputError: none of a table's trials could be computed.
    """
    tables = make_tables(data.result(numbers))  # all at once: every result reads the run again
    paths = [path for table in tables for path in table.write(out)]
    if missing := sorted(set(numbers) - {table.number for table in tables}):
        raise cl.InputError(
            f"No trial of table {', '.join(map(str, missing))} could be computed; the rest is in {out}."
        )
    return paths


if __name__ == "__main__":
    sys.exit(run_script(__file__))
