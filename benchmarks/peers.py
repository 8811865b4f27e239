"""The same jobs in caap_lab and in other tools: ``python -m benchmarks.peers --out docs/tables/peers.md``.

Each row is measured in a process of its own, in pairs of calls that alternate, on the same model with the same random
weights; peak memory in one more process per tool. A tool that is not installed has a row with the line that installs
it. The lines that measure are in the files `peers_*.py`.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import peers_attribution, peers_metrics, peers_patching
from benchmarks.machine import describe
from benchmarks.peers_job import PEERS, Job, Row
from benchmarks.peers_process import WHAT, in_process

NOISE = 1.05
"""Ratios up to this one count as equal."""
_LOOK = "each call looks at all weights and modules once, as maps say which model made them"
REASONS = {
    ("Integrated Gradients", "time"): _LOOK,
    ("SmoothGrad", "time"): _LOOK,
    ("occlusion", "time"): _LOOK,
    ("pixel flipping", "time"): "it makes the insertion curve as well, from as many images again",
    ("pixel flipping", "memory"): "changed images run in batches, there one at a time",
    ("record", "time"): "images are checked and activations copied, and the store says which weights made them",
    ("record", "memory"): "the store is a copy, which later steps cannot change, beside the stream that runs on",
    ("sweep", "memory"): "cells run in batches, there one at a time",
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
    row, ours, theirs = (in_process(job, what, pairs) for what in WHAT)
    return Row(**row | {"ours_bytes": ours, "theirs_bytes": theirs})


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
    causes: dict[tuple[str, str], list[str]] = {}
    for job, what in over:
        causes.setdefault((what, REASONS[job, what]), []).append(job)
    reasons = "".join(f" More {what} for {', '.join(names)}: {why}." for (what, why), names in causes.items())
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
        table.writerows(asdict(row) for row in rows)


def read_csv(path: Path) -> list[Row]:
    """The rows that `write_csv` wrote."""
    text, whole = {"job", "peer", "model", "compared"}, {"ours_bytes", "theirs_bytes"}

    def value(name: str, cell: str) -> Any:
        return cell if name in text else None if not cell else int(cell) if name in whole else float(cell)

    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: value(name, cell) for name, cell in line.items()}) for line in csv.DictReader(file)]


def main() -> None:
    """Measure, print, and keep the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--jobs", nargs="+", default=[], help="names of jobs, such as record; all of them by default")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file, and a .csv beside it")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for job in all_jobs():
        if not arguments.jobs or job.name in arguments.jobs:
            rows.append(run(job, arguments.pairs))
            print(report(rows[-1:], arguments.pairs).splitlines()[2], flush=True)
            if arguments.out:
                arguments.out.write_text(report(rows, arguments.pairs), encoding="utf-8")
                write_csv(rows, arguments.out.with_suffix(".csv"))
    print(report(rows, arguments.pairs))
    for what in unexplained(rows):
        print(f"No reason is given for {what}.", file=sys.stderr)


if __name__ == "__main__":
    main()
