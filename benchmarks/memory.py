"""The cost of a limit on memory, and whether it holds: ``python -m benchmarks.memory --out docs/tables/memory.md``.

Several images in one call, with limits and without one. The time without a limit is the mean of one run just before and
one just after, because a machine's speed may drift.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.caap import SMALL, build
from benchmarks.counting import peak_bytes, timed
from benchmarks.machine import describe
from caap_lab import caap
from caap_lab.engine.settings import DEFAULT_MEMORY

BOUNDS = (0.0625, 0.125, 0.25, DEFAULT_MEMORY)
"""GiB."""
IMAGES = 4


def measure(name: str, repeats: int) -> list[tuple[float, int, float]]:
    """Limits, bytes held at the peak, and the median of the time relative to that without a limit."""
    torch.manual_seed(0)
    model = build(name)
    images = torch.randn(IMAGES, 3, *model.spec.image_size)

    def run(max_memory: float) -> Any:
        return caap(model, images, max_memory=max_memory, progress=False)

    found = []
    run(64.0)
    for bound in BOUNDS:
        held = peak_bytes(lambda bound=bound: run(bound))  # type: ignore[misc]
        free = [timed(lambda: run(64.0))]
        ratios = []
        for _ in range(repeats):
            bounded = timed(lambda bound=bound: run(bound))  # type: ignore[misc]
            free.append(timed(lambda: run(64.0)))
            ratios.append(2 * bounded / (free[-2] + free[-1]))
        found.append((bound, held, statistics.median(ratios)))
    return found


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--models", nargs="+", default=SMALL, choices=SMALL)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    lines = ["| model | `max_memory` | held at the peak | time, without a limit = 1 |", "|---|---|---|---|"]
    for name in arguments.models:
        for bound, held, ratio in measure(name, arguments.repeats):
            lines.append(f"| {name} | {bound * 1024:.0f} MiB | {held / 2**20:.0f} MiB | {ratio:.2f} |")
    text = "\n".join(lines) + (
        f"\n\n{IMAGES} images in one call, medians of {arguments.repeats}; held beyond the model and the blank's run, "
        f"as counted by torch's allocator. {describe()}.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
