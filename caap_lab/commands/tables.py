"""`caap-lab tables`: the tables of a benchmark, next to the paper's numbers if it has them."""

import argparse
from pathlib import Path

HELP = "tables of a benchmark as Markdown, LaTeX and CSV, for the paper profile next to the paper's numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder that `caap-lab bench` wrote")
    parser.add_argument("--out", type=Path, help="folder for the tables; RUN/tables by default")


def run(parsed: argparse.Namespace) -> int:
    """Write a run's tables, and a page and a LaTeX document with all of them; print the page."""
    from caap_lab.bench.result import BenchmarkResult
    from caap_lab.bench.tables.table import write_tables

    result = BenchmarkResult.open(parsed.run_folder)
    folder = parsed.out or result.folder / "tables"
    page, *paths = write_tables(result, folder)
    print(page.read_text(encoding="utf-8"))
    print(f"{result.progress} {len(paths) + 1} files in {folder}")
    return 0
