"""`caap-lab figures`: the paper's figures and tables, from the scripts in figures/."""

import argparse
from pathlib import Path

from caap_lab.commands.bench_options import HOW, WHAT, add_bench_arguments, given_options, profile_plan

SWEEP_IMAGES = {"demo": 8, "paper": None}
"""Images of each data set in the sweeps of figures 4, 5 and 7; None is all of the tables' images."""
HELP = "the paper's figures and tables as PDF, PNG, CSV, Markdown and LaTeX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="all, fig01 to fig10, gallery, tab01 to tab15")
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=("demo", "paper"), default="demo", help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="folder; default %(default)s")
    parser.add_argument(
        "--results", type=Path, dest="run_folder", help="where results are kept; OUT/results by default"
    )
    add_bench_arguments(parser)


def run(parsed: argparse.Namespace) -> int:
    """Draw figures and tables of a profile, computing what is missing; prints the files."""
    from caap_lab.figures.make import check_names, make
    from caap_lab.figures.world import World

    names = check_names(parsed.names)
    plan = profile_plan(parsed.profile, given_options(parsed, WHAT))
    results = parsed.run_folder or parsed.out / "results"
    world = World(plan, results, given_options(parsed, HOW), SWEEP_IMAGES[parsed.profile])
    for path in make(names, world, parsed.out):
        print(path)
    return 0
