"""`caap-lab figures`: the paper's figures and tables, from the scripts in figures/."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.commands.bench_options import HOW, WHAT, add_bench_arguments, given_options, profile_plan
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.figure_data import FigureData

SWEEP_IMAGES = {"demo": 8, "paper": None}
"""Images of each data set in the sweeps of figures 4, 5 and 7; None is all of the tables' images."""
HELP = "the paper's figures and tables as PDF, PNG, CSV, Markdown and LaTeX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="all, fig01 to fig10, gallery, tab01 to tab15")
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", default="demo", metavar="PROFILE", help="demo, paper, or a file of settings; default %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="folder; default %(default)s")
    parser.add_argument(
        "--results", type=Path, dest="run_folder", help="where results are kept; OUT/results by default"
    )
    add_bench_arguments(parser)


def run(parsed: argparse.Namespace) -> int:
    """Draw figures and tables of a profile, computing what is missing; prints the files."""
    from caap_lab.bench.figure_scripts import check_names, make

    names = check_names(parsed.names)
    for path in make(names, _data(parsed), parsed.out):
        print(path)
    return 0


def run_script(script: str | Path, arguments: Sequence[str] | None = None) -> int:
    """Run a script of figures/ as a program, such as `python figures/fig05.py --profile demo`.

    Args:
        script: The script's file. tables.py writes all tables of the profile, or those of `--tables`.
        arguments: Those of `caap-lab figures`, without a name; by default those of the program.

    Returns:
        The exit status, 2 for input that cannot be used.
    """
    from caap_lab.bench.figure_scripts import make

    path = Path(script)
    parser = argparse.ArgumentParser(prog=path.name)
    _add_options(parser)
    parsed = parser.parse_args(arguments)
    try:
        data = _data(parsed)
        tables = [f"tab{number:02d}" for number in sorted({study.table for study in data.plan.studies})]
        for written in make(tables if path.stem == "tables" else [path.stem], data, parsed.out, path.parent):
            print(written)
    except InputError as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return 2
    return 0


def _data(parsed: argparse.Namespace) -> "FigureData":
    from caap_lab.bench.figure_data import FigureData

    plan = profile_plan(parsed.profile, given_options(parsed, WHAT))
    results = parsed.run_folder or parsed.out / "results"
    return FigureData(plan, results, given_options(parsed, HOW), SWEEP_IMAGES.get(parsed.profile))
