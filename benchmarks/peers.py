"""The same jobs in caap_lab and in other tools: ``python -m benchmarks.peers --out docs/tables/peers.md``.

Each row is measured in a process of its own, in pairs of calls that alternate, on the same model with the same random
weights; peak memory in one more process per tool. A tool that is not installed has a row with the line that installs
it. The lines that measure are in the files `peers_*.py`.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import peers_attribution, peers_metrics, peers_patching
from benchmarks.machine import describe
from benchmarks.peers_job import PEERS, Job, Row, measure, memory

NOISE = 1.05
"""Ratios up to this one count as equal."""
REASONS = {
    ("record", "memory"): "a block of the hooked model keeps the inputs of its steps until its end, for hooks to read",
}
"""Why a job takes more time or memory than the peer's, by job and "time" or "memory"."""
HEADER = ("job", "model", "other tool", "ours", "theirs", "time, theirs = 1", "memory, theirs = 1", "results")


def all_jobs() -> list[Job]:
    """Every row of the table, in its order."""
    return [*peers_attribution.jobs(), *peers_metrics.jobs(), *peers_patching.jobs()]


def run(job: Job, pairs: int) -> Row:
    """A row, measured in processes of its own."""
    if not job.peer.installed:
        return Row(job.name, job.peer.name, job.model)
    found = Row(**_in_process(job, "row", pairs))
    ours, theirs = (_in_process(job, what, pairs) for what in ("ours", "theirs"))
    return Row(**found.to_dict() | {"ours_bytes": ours, "theirs_bytes": theirs})


def _in_process(job: Job, what: str, pairs: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.peers", "--one", job.key, "--what", what, "--pairs", str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{job.key} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def unexplained(rows: Sequence[Row]) -> list[str]:
    """What takes more than the peer's time or memory, beyond noise, and has no reason in `REASONS`."""
    return [f"{row.job}: {what}" for row in rows for what in _over(row) if (row.job, what) not in REASONS]


def _over(row: Row) -> list[str]:
    ratios = {"time": row.ratio, "memory": row.memory_ratio}
    return [what for what, ratio in ratios.items() if ratio is not None and ratio > NOISE]


def report(rows: Sequence[Row], pairs: int) -> str:
    """The table in Markdown, and how it was measured."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for row in rows:
        peer = PEERS[row.peer]
        name = f"{row.peer} {version(peer.package.split()[0])}" if peer.package and peer.installed else row.peer
        cells = [row.job, row.model, name]
        if row.ratio is None:
            cells += ["", "not installed", "", "", f"`pip install {peer.package}`"]
        else:
            assert row.ours is not None and row.theirs is not None
            cells += [_seconds(row.ours), _seconds(row.theirs), f"{row.ratio:.2f}"]
            cells.append("" if row.memory_ratio is None else f"{row.memory_ratio:.2f}")
            cells.append(f"{row.compared} {row.result:.2g}")
        lines.append(f"| {' | '.join(cells)} |")
    over = dict.fromkeys((row.job, what) for row in rows for what in _over(row) if (row.job, what) in REASONS)
    reasons = "".join(f" {job[0].upper()}{job[1:]} takes more {what}: {REASONS[job, what]}." for job, what in over)
    about = (
        f"Random weights, float32. Medians of {pairs} pairs of calls that alternate in one process, ratios in pairs. "
        "Memory: the most that a call holds at once besides the model and the images, by torch's allocator, in a "
        "process per tool. Results: the largest difference, or Spearman's rank correlation where the definitions "
        "differ (Score-CAM enlarges with aligned corners there; SmoothGrad draws its own noise). Occlusion is Captum's "
        "FeatureAblation with the same windows. Pixel flipping: caap_lab makes the insertion curve in the same time. "
        "A sweep restores the residual stream at every block and token, one forward pass per cell in the other tools. "
        f"Record: the residual streams leaving all blocks, {peers_patching.IMAGES} images in one batch. All else: one "
        f"image, {peers_attribution.BATCH} copies at once; {peers_attribution.STEPS} steps or samples.{reasons} "
        f"{describe()}."
    )
    return "\n".join([*lines, "", about, ""])


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """The rows with all digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(row.to_dict() for row in rows)


def read_csv(path: Path) -> list[Row]:
    """The rows that `write_csv` wrote."""
    text, whole = {"job", "peer", "model", "compared"}, {"ours_bytes", "theirs_bytes"}

    def value(name: str, cell: str) -> Any:
        return cell if name in text else None if not cell else int(cell) if name in whole else float(cell)

    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: value(name, cell) for name, cell in line.items()}) for line in csv.DictReader(file)]


def main() -> None:
    """Measure, print, and keep the table."""
    jobs = {job.key: job for job in all_jobs()}
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--jobs", nargs="+", default=[], help="names of jobs, such as record; all of them by default")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file, and a .csv beside it")
    parser.add_argument("--one", choices=list(jobs), metavar="ROW", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=["row", "ours", "theirs"], default="row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        job = jobs[arguments.one]
        found: Any = measure(job, arguments.pairs).to_dict() if arguments.what == "row" else None
        print(json.dumps(memory(job, arguments.what == "ours") if found is None else found))
        return
    rows: list[Row] = []
    for job in jobs.values():
        if not arguments.jobs or job.name in arguments.jobs:
            rows.append(run(job, arguments.pairs))
            print(report(rows[-1:], arguments.pairs).splitlines()[2], flush=True)
    text = report(rows, arguments.pairs)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
        write_csv(rows, arguments.out.with_suffix(".csv"))
    for what in unexplained(rows):
        print(f"No reason is given for {what}.", file=sys.stderr)


if __name__ == "__main__":
    main()
