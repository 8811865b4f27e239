"""`caap-lab bench`: a benchmark of several models, methods and images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab.commands.bench_options import (
    HOW,
    WHAT,
    add_bench_arguments,
    demo_profile,
    given_options,
    images_of,
    paper_settings,
    refuse_others,
)
from caap_lab.commands.target_flags import FLAGS, with_flags
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.result import BenchmarkResult

HELP = "benchmark models x methods x images; run it again to continue where it stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--profile", metavar="PROFILE", help="the paper's tables: demo (small, offline), paper, or a file of settings"
    )
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; alone, it resumes the run there")
    add_bench_arguments(parser)


def run(parsed: argparse.Namespace) -> int:
    """Run or resume a benchmark; print where it is and what failed. Returns 1 if anything failed."""
    from caap_lab.bench.benchmark import resume, run_plan
    from caap_lab.bench.run_folder import RunFolder

    how, what = given_options(parsed, HOW), given_options(parsed, WHAT)
    if parsed.profile == "demo":
        result = run_plan(demo_profile(what), parsed.out, **how)
    elif parsed.profile is not None:
        result = _paper(parsed.profile, what, parsed.out, how)
    elif not what and RunFolder(parsed.out).plan_path.exists():
        result = resume(parsed.out, **how)
    else:
        result = _benchmark(parsed.out, what, how)
    print(result)
    failed = result.failed
    for row in failed.head(5).itertuples():
        print(f"  failed: {row.method} of {row.model} on {row.image}: {row.error}")
    if len(failed) > 5:
        print(f"  and {len(failed) - 5} more; `caap-lab bench --out {parsed.out} --retry-failed` retries them")
    return 1 if len(failed) else 0


def _paper(profile: str, what: dict[str, Any], out: Path, how: dict[str, Any]) -> "BenchmarkResult":
    """Run the paper profile; its settings are stored next to its plan, so the run can be reproduced."""
    from caap_lab.bench.benchmark import run_plan
    from caap_lab.bench.paper.profiles import left_out, paper_plan
    from caap_lab.bench.paper.settings_file import write_settings
    from caap_lab.bench.plan import BenchmarkPlan
    from caap_lab.bench.run_folder import RunFolder

    settings = paper_settings(profile, what)
    plan = paper_plan(settings)
    for sentence in left_out(settings):
        print(sentence, flush=True)
    run = RunFolder(out)
    record = run.folder / "paper.toml"
    try:
        return run_plan(plan, out, **how)
    finally:
        # Nothing is written if the run was rejected, because the folder may hold another run; nor to the user's own
        # file.
        ran = run.plan_path.exists() and BenchmarkPlan.load(run.plan_path).studies == plan.studies
        if ran and not (record.exists() and Path(profile).exists() and record.samefile(profile)):
            write_settings(settings, record)


def _benchmark(out: Path, what: dict[str, Any], how: dict[str, Any]) -> Any:
    """A benchmark of the user's own models, methods and images."""
    from caap_lab.bench.benchmark import benchmark

    missing = [name for name in ("models", "methods", "data") if name not in what]
    if not what:
        raise InputError(
            f"{out} has no plan.json, so there is no run to resume. For a new run, add --models, --methods and --data, "
            "or use --profile."
        )
    if missing:
        raise InputError(f"Add --{', --'.join(missing)}, or use --profile; to resume an earlier run, give only --out.")
    only = ("head", "tables", "without", "precision")
    refuse_others(what, [name for name in WHAT if name not in only], "a run without --profile paper")
    if "images" in what:
        what["images"] = images_of(what)
    flags = {name: what.pop(name) for name in FLAGS if name in what}
    if flags:
        what["target"] = with_flags(what.get("target", "prediction"), flags.get("against"), flags)
    lists = what.pop("image_list", [])
    if len(lists) > 1:
        raise InputError("Use one --image-list; several are only for --profile paper.")
    return benchmark(out=out, image_list=lists[0] if lists else None, **what, **how)
