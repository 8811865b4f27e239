"""`caap-lab doctor`: what the paper profile needs, what is missing, and the cost of a run."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from caap_lab.commands.bench_options import HOW, WHAT, add_bench_arguments, given_options, paper_settings
from caap_lab.commands.cost_lines import cost_lines
from caap_lab.cpu_use import contention_now
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.paper.doctor import Part, Report
    from caap_lab.bench.paper.settings import PaperSettings

HELP = "what `bench --profile paper` needs, how to get what is missing, and what it costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--profile", default="paper", metavar="PROFILE", help="paper (default), or a file of settings")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/paper"),
        help="the run's folder in the printed command; default %(default)s",
    )
    add_bench_arguments(parser)
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write all settings, filled in as far as possible, to a file for --profile",
    )
    parser.add_argument("--quick", action="store_true", help="check that files exist, but do not open models or images")
    parser.add_argument("--no-timing", action="store_true", help="do not measure how long a forward pass takes")
    parser.add_argument(
        "--compare",
        type=int,
        metavar="N",
        help="compute N images of each data set in the number format of --precision and in float32, and print what "
        "changes; the trials are stored in --out",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Print what the paper profile needs, what is missing and the cost of a run; returns 1 if something is missing."""
    from torch import get_num_threads

    from caap_lab.bench.paper.doctor import advice, doctor

    device = parsed.device or "cpu"
    settings = paper_settings(parsed.profile, given_options(parsed, WHAT))
    _check_file(parsed)
    for name in ("write", "quick", "no_timing"):
        if parsed.compare is not None and getattr(parsed, name):
            raise InputError(f"--{name.replace('_', '-')} cannot be used with --compare.")
    if parsed.compare is not None:
        return _compare(parsed, settings)
    report = doctor(
        settings,
        device=device,
        batch_size=parsed.batch_size or 64,
        timing=not parsed.no_timing,
        quick=parsed.quick,
        progress=True,
    )
    if parsed.write:
        _write(report, parsed.write)
    command = _command(parsed, report.possible) if report.possible else None
    threads = contention_now(get_num_threads()) if device == "cpu" else ""
    if parsed.json:
        # "cells" is the older name of "trials".
        costs = [asdict(cost) | {"cells": cost.trials, "seconds": cost.seconds} for cost in report.costs]
        rest = {"complete": report.complete, "advice": advice(report), "command": command, "threads": threads}
        print(json.dumps({**asdict(report), "costs": costs, **rest}, indent=1))
        return 0 if report.complete else 1
    for title in ("Weights", "Heads", "Classifiers", "Data"):
        parts = getattr(report, title.lower())
        if parts:
            width = max(16, *(len(part.name) for part in parts))
            print("\n".join([title, *(_line(part, width) for part in parts), ""]))
    print("\n".join(["Settings", *(f"  {line}" for line in _settings(report)), ""]))
    for text in advice(report):
        print(f"{text}\n")
    timed = not parsed.no_timing
    print("\n".join(cost_lines(report.cost, report.tables, device, settings.precision, timed)))
    if threads:
        print(f"  {threads}")
    if parsed.write:
        print(f"\n{parsed.write} has these settings.")
    if command is None:
        print("\nNothing can run yet: no table has all that it needs.")
    else:
        print(f"\n{'Everything is available; run' if report.complete else 'Tables that can run now'}:\n  {command}")
    return 0 if report.complete else 1


def _compare(parsed: argparse.Namespace, settings: "PaperSettings") -> int:
    """Print the effect of a number format on the profile's maps and metrics, for a few images."""
    from caap_lab.bench.paper.precision import REFERENCE, comparison_lines, precision_effect
    from caap_lab.checks import check_count

    check_count("--compare", parsed.compare)
    frame = precision_effect(settings, parsed.compare, parsed.out, **given_options(parsed, HOW))
    if parsed.json:
        print(frame.to_json(orient="records", indent=1))
        return 0
    heads, *rows = comparison_lines(frame)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    print(f"{settings.precision} and {REFERENCE}: changes of metrics in their units, with paired standard errors;")
    print("rank correlation of maps if both predict the same class, mean (lowest)")
    for cells in (heads, *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(f"  The trials are stored in {parsed.out}; a run with these settings reuses them.")
    return 0


def _check_file(parsed: argparse.Namespace) -> None:
    """Raise InputError if the file exists and was not read, before anything is checked."""
    file = parsed.write
    if file is not None and file.exists() and not (Path(parsed.profile).exists() and file.samefile(parsed.profile)):
        raise InputError(f"--write: {file} already exists. Choose another name, or start from it: --profile {file}.")


def _write(report: "Report", file: Path) -> None:
    from caap_lab.bench.paper.filled_settings import filled, missing
    from caap_lab.bench.paper.settings_file import write_settings

    write_settings(filled(report), file, missing(report))


def _line(part: "Part", width: int) -> str:
    report = "\n            ".join(part.report.splitlines())
    state = "here" if part.here else "unfit" if part.unfit else "missing"
    return f"  {state:8}{part.name:{width}} {report}"


def _settings(report: "Report") -> list[str]:
    """What a run computes and does not compute."""
    settings = report.settings
    groups: dict[int, dict[str, None]] = {}
    for table in report.tables:
        for dataset in settings.datasets(table):
            groups.setdefault(settings.count(table, dataset), {})[str(table)] = None
    images = "; ".join(
        f"{count} in table{'s' * (len(tables) > 1)} {', '.join(tables)}" if len(groups) > 1 else f"{count}"
        for count, tables in groups.items()
    )
    return [
        f"images of each data set: {images or 'none'}; seed {settings.seed}",
        f"protocol {settings.protocol}, precision {settings.precision}",
        *report.left_out,
    ]


def _command(parsed: argparse.Namespace, possible: Sequence[int]) -> str:
    """The command that computes these tables, with the options of `doctor` or the file that contains them."""
    from caap_lab.bench.paper.published import tables

    profile = parsed.write or parsed.profile
    words = ["caap-lab", "bench", "--profile", str(profile), "--out", str(parsed.out)]
    if list(possible) != tables():
        words += ["--tables", *map(str, possible)]
    for name in (*(() if parsed.write else WHAT), *HOW):
        value = getattr(parsed, name)
        if name != "tables" and value not in (None, False):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)
