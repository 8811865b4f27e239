"""`caap-lab figures`: the paper's figures and tables, from the scripts in figures/."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab.commands.bench_options import (
    HOW,
    PROFILES,
    WHAT,
    add_bench_arguments,
    given_options,
    paper_settings,
    profile_plan,
)
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.figures.data import FigureData
    from caap_lab.bench.figures.needs import Need
    from caap_lab.bench.paper.settings import PaperSettings
    from caap_lab.bench.plan import BenchmarkPlan

SWEEP_IMAGES = {"demo": 8}
"""Images per data set in the sweeps of figures 4, 5 and 7; the paper profile uses all of the tables' images."""
HELP = "the paper's figures and tables as PDF, PNG, CSV, Markdown and LaTeX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="all, fig01 to fig10, gallery (fig11 to fig40), tab01 to tab15"
    )
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", metavar="PROFILE", help="demo, paper, or a file of settings; default that of --results, or demo"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="output folder; default %(default)s")
    parser.add_argument(
        "--results",
        type=Path,
        dest="run_folder",
        help="folder of results, such as one that `bench` wrote; OUT/results by default",
    )
    parser.add_argument(
        "--photos",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="images of figures 1, 2, 3 and 11 to 40, by name",
    )
    parser.add_argument(
        "--sweep-images", type=int, metavar="N", help="images per data set in figures 4, 5 and 7; 8 for the demo"
    )
    add_bench_arguments(parser)


def run(parsed: argparse.Namespace) -> int:
    """Draw figures and tables of a profile, computing what is missing; print the paths of the files."""
    from caap_lab.bench.figures.scripts import make, needs_of

    needs = needs_of(parsed.names)
    for path in make(parsed.names, _data(parsed, needs, everything="all" in parsed.names), parsed.out):
        print(path)
    return 0


def run_script(script: str | Path, arguments: Sequence[str] | None = None) -> int:
    """Run a script of figures/ as a program, such as `python figures/fig05.py --profile demo`.

    Args:
        script: Path of the script. tables.py writes all tables of the profile, or those of `--tables`.
        arguments: Arguments of `caap-lab figures`, without a name; by default those of the program.

    Returns:
        The exit status, 2 for invalid input.
    """
    from caap_lab.bench.figures.scripts import make, needs_of

    path = Path(script)
    parser = argparse.ArgumentParser(prog=path.name)
    _add_options(parser)
    parsed = parser.parse_args(arguments)
    try:
        whole = path.stem == "tables"
        data = _data(parsed, {} if whole else needs_of([path.stem], path.parent), everything=whole)
        tables = [f"tab{number:02d}" for number in sorted(data.tables)]
        for written in make(tables if whole else [path.stem], data, parsed.out, path.parent):
            print(written)
    except InputError as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return 2
    return 0


def _data(parsed: argparse.Namespace, needs: "Mapping[str, tuple[Need, ...] | None]", everything: bool) -> "FigureData":
    """The data that figures are drawn from.

    Args:
        parsed: The command line.
        needs: Needs of the figures, by name; None, or an empty mapping, if the complete profile is read.
        everything: True to omit what has no data instead of raising an error.
    """
    from caap_lab.bench.figures.data import FigureData
    from caap_lab.bench.figures.needs import run_in
    from caap_lab.bench.figures.options import FigureOptions
    from caap_lab.checks import check_count

    what = given_options(parsed, WHAT)
    options = FigureOptions(tuple(parsed.photos), what.pop("target", None))
    results = parsed.run_folder or parsed.out / "results"
    if parsed.run_folder is not None and parsed.profile is None and run_in(results) is None:
        raise InputError(
            f"There is no run in {results}. Use a folder that `caap-lab bench` wrote, or choose the profile whose "
            "results to compute and store there: --profile demo, or --profile paper."
        )
    plan = _plan(parsed.profile, what, results, needs, everything)
    if parsed.sweep_images is not None:
        check_count("sweep_images", parsed.sweep_images)
        most = max(len(study.data.names) for study in plan.studies)
        if parsed.sweep_images > most:
            raise InputError(
                f"--sweep-images {parsed.sweep_images} is too large: sweeps use the tables' images, {most} here."
            )
    count = parsed.sweep_images or SWEEP_IMAGES.get(plan.profile)
    return FigureData(plan, results, given_options(parsed, HOW), count, options)


def _plan(
    profile: str | None,
    options: dict[str, Any],
    results: Path,
    needs: "Mapping[str, tuple[Need, ...] | None]",
    everything: bool,
) -> "BenchmarkPlan":
    """The plan of the profile, or of the run in the results' folder, as far as the figures need it."""
    from caap_lab.bench.figures.needs import check_tables, completed_demo, narrowed, run_in

    known = None if None in needs.values() or not needs else [need for some in needs.values() for need in some or ()]
    there = run_in(results)
    if there is not None and profile is None and there.profile not in PROFILES:
        raise InputError(
            f"{results} contains your own run, but the paper's figures belong to a profile: use --profile demo or "
            "--profile paper."
        )
    chosen = profile or (there.profile if there is not None else "demo")
    way_out = "Omit --tables, or add the table there."
    if there is not None and there.profile == chosen and not options:
        plan = completed_demo(there, known) if chosen == "demo" else there
        way_out = f"The run in {results} is used; for another one pass its settings: --profile paper --data ..."
    elif chosen != "demo":
        return _paper_plan(paper_settings(chosen, options), {} if everything else needs, known)
    else:
        plan = profile_plan(chosen, options)
    if not everything:
        check_tables(needs, {study.table for study in plan.studies}, way_out)
    return plan if known is None else narrowed(plan, known)


def _paper_plan(
    settings: "PaperSettings", must: "Mapping[str, tuple[Need, ...] | None]", known: "Sequence[Need] | None"
) -> "BenchmarkPlan":
    """The paper profile's plan; prints what is left out.

    Args:
        settings: Settings of the profile.
        must: Figures whose needs have to be met, by name; others may lack data.
        known: Needs of all figures; None for the complete profile.
    """
    from caap_lab.bench.figures.needs import check_tables, paper_figure_plan, settings_for
    from caap_lab.bench.paper.profiles import left_out, paper_plan

    check_tables(must, settings.wanted, "Omit --tables, or add the table there.")
    asked = settings if known is None else settings_for(settings, known)
    plan = paper_plan(asked) if known is None else paper_figure_plan(asked, known)
    for sentence in left_out(asked):
        print(sentence, file=sys.stderr)
    return plan
