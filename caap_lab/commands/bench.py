"""The commands `caap-lab bench`, `caap-lab doctor` and `caap-lab tables`."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from caap_lab.bench.benchmark import benchmark, resume, run_plan
from caap_lab.bench.doctor import Part, Report, advice
from caap_lab.bench.doctor import doctor as look
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.profiles import demo_plan, paper_plan
from caap_lab.bench.published import tables as all_tables
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.tables import write_tables
from caap_lab.errors import InputError


def bench(parsed: argparse.Namespace) -> int:
    """Run a benchmark, or go on with one; prints where it is and what failed."""
    running, choices = options_of(parsed)
    if parsed.profile is not None:
        result = run_plan(profile_plan(parsed.profile, choices), parsed.out, **running)
    elif not choices and RunFolder(parsed.out).plan_path.exists():
        result = resume(parsed.out, **running)
    else:
        missing = [name for name in ("models", "methods", "data") if name not in choices]
        if missing:
            raise InputError(
                f"Give --{', --'.join(missing)} as well, a --profile, or the folder of an earlier run alone."
            )
        _only(choices, "", (*_CHOICES[:-2], "image_list"))
        lists = choices.pop("image_list", [])
        if len(lists) > 1:
            raise InputError("Give one --image-list; several are for --profile paper.")
        result = benchmark(out=parsed.out, image_list=lists[0] if lists else None, **choices, **running)
    print(result)
    failed = result.failed
    for row in failed.head(5).itertuples():
        print(f"  failed: {row.method} of {row.model} on {row.image}: {row.error}")
    if len(failed) > 5:
        print(f"  and {len(failed) - 5} more; `caap-lab bench --out {parsed.out} --retry-failed` tries them again")
    return 1 if len(failed) else 0


def options_of(parsed: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given on the command line: how to run, and what."""
    running, choices = (
        {name: value for name in names if (value := getattr(parsed, name)) is not None}
        for names in (_RUNNING, _CHOICES)
    )
    return running, choices


def profile_plan(profile: str, choices: dict[str, Any]) -> BenchmarkPlan:
    """The plan of a profile, with what was given on the command line.

    Raises:
        InputError: an option does not go with the profile, or something that it needs is missing.
    """
    if profile == "paper":
        return paper_plan(**_paper(choices), **_some(choices, "seed"))
    _only(choices, "demo", ("images", "tables"))
    return demo_plan(**{"chosen": choices.get("tables"), **_some(choices, "images")})


def doctor(parsed: argparse.Namespace) -> int:
    """Print what the paper profile needs, what is here and what a run costs; returns 1 if something is missing."""
    _, choices = options_of(parsed)
    device = parsed.device or "cpu"
    report = look(**_paper(choices), device=device, timing=not parsed.no_timing)
    command = _command(parsed, report.possible) if report.possible else None
    if parsed.json:
        costs = [asdict(cost) | {"seconds": cost.seconds} for cost in report.costs]
        rest = {"complete": report.complete, "advice": advice(report), "command": command}
        print(json.dumps({**asdict(report), "costs": costs, **rest}, indent=1))
        return 0 if report.complete else 1
    for title, parts in (("Weights", report.weights), ("Heads", report.heads), ("Data", report.data)):
        if parts:
            print("\n".join([title, *map(_line, parts), ""]))
    for text in advice(report):
        print(f"{text}\n")
    print("\n".join(_costs(report, device)))
    if not parsed.no_timing and any(cost.seconds is None for cost in report.costs):
        print("  A model without a time does not fit into the free memory.")
    if command is None:
        print("\nNothing can run yet: no table has all that it needs.")
    else:
        print(f"\n{'All is here' if report.complete else 'What is here is enough for this'}:\n  {command}")
    return 0 if report.complete else 1


def _line(part: Part) -> str:
    return f"  {'here' if part.here else 'missing':8}{part.name:17}{part.report}"


def _costs(report: Report, device: str) -> list[str]:
    """The cost of the chosen tables, a line a model."""
    whole = f"table {report.tables[0]}" if len(report.tables) == 1 else f"{len(report.tables)} tables"
    lines = [
        f"Cost of {whole} in forward passes, a backward pass counted as two; time by one process on {device}",
        f"  {'model':17}{'cells':>9}{'passes':>15}{'s a pass':>12}{'time':>12}",
    ]
    for cost in report.costs:
        each = "" if cost.seconds_per_pass is None else f"{cost.seconds_per_pass:.2g}"
        lines.append(f"  {cost.model:17}{cost.cells:9,}{cost.passes:15,.0f}{each:>12}{_duration(cost.seconds):>12}")
    seconds = [cost.seconds for cost in report.costs]
    total = None if None in seconds else sum(filter(None, seconds))
    cells, passes = sum(cost.cells for cost in report.costs), sum(cost.passes for cost in report.costs)
    return [*lines, f"  {'all':17}{cells:9,}{passes:15,.0f}{'':12}{_duration(total):>12}"]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _command(parsed: argparse.Namespace, possible: Sequence[int]) -> str:
    """The command that makes these tables, with the options that `doctor` was given."""
    words = ["caap-lab", "bench", "--profile", "paper", "--out", str(parsed.out)]
    if list(possible) != all_tables():
        words += ["--tables", *map(str, possible)]
    for name in (*_CHOICES, *_RUNNING):
        value = getattr(parsed, name)
        if name != "tables" and value not in (None, False):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)


def tables(parsed: argparse.Namespace) -> int:
    """Write a run's tables; prints the Markdown."""
    result = BenchmarkResult.open(parsed.run_folder)
    folder = parsed.out or result.folder / "tables"
    page, *paths = write_tables(result, folder)
    print(page.read_text(encoding="utf-8"))
    print(f"{result.progress} {len(paths) + 1} files in {folder}")
    return 0


_RUNNING = ("device", "batch_size", "workers", "scheduler", "retry_failed")
_CHOICES = (
    "models",
    "methods",
    "data",
    "images",
    "seed",
    "metrics",
    "target",
    "protocol",
    "image_list",
    "head",
    "tables",
)


def _paper(choices: dict[str, Any]) -> dict[str, Any]:
    """What `paper_plan` and `doctor` both take."""
    _only(choices, "paper", ("images", "tables", "data", "models", "head", "image_list", "seed", "protocol"))
    return {
        "data": choices.get("data", []),
        "models": choices.get("models", []),
        "heads": _named(choices.get("head", []), "head"),
        "chosen": choices.get("tables"),
        "image_lists": _named(choices.get("image_list", []), "image-list"),
        **_some(choices, "images", "protocol"),
    }


def _only(choices: dict[str, Any], profile: str, known: tuple[str, ...]) -> None:
    for name in choices:
        if name not in known:
            where = f"--profile {profile}" if profile else "a run without --profile paper"
            raise InputError(f"--{name.replace('_', '-')} does not go with {where}.")


def _some(choices: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: choices[name] for name in names if name in choices}


def _named(texts: list[str], option: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"--{option} {text} has to be NAME=PATH, with one of the paper's names.")
    return dict(text.split("=", 1) for text in texts)
