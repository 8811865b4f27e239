"""What smaller parts save on a CPU: ``python -m benchmarks.at_once --out docs/tables/at_once.md``.

Maps and forward passes of several images, in alternating pairs: all images at once, and as many as
`caap_lab.models.at_once` lets run at once.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.caap import SMALL, build
from benchmarks.counting import timed
from benchmarks.machine import describe
from caap_lab import caap
from caap_lab.models import at_once
from caap_lab.models.batches import batches

IMAGES = {"maps": 8, "forward passes": 32}


def jobs(name: str) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    torch.manual_seed(0)
    model = build(name)
    images = {job: torch.randn(count, 3, *model.spec.image_size) for job, count in IMAGES.items()}

    @torch.no_grad()
    def forward_passes() -> None:
        for batch in batches(model, images["forward passes"], IMAGES["forward passes"]):
            model(batch)

    return {
        "maps": lambda: caap(model, images["maps"], batch_size=IMAGES["maps"], max_memory=64.0, progress=False),
        "forward passes": forward_passes,
    }


def pairs(call: Callable[[], Any], repeats: int) -> list[tuple[float, float]]:
    """Seconds of a call with all images at once, and of one in smaller parts."""

    def whole() -> float:
        with mock.patch.object(at_once, "LARGEST", 2**40):
            return timed(call)

    whole(), timed(call)
    return [(whole(), timed(call)) for _ in range(repeats)]


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.at_once", description=__doc__)
    parser.add_argument("--models", nargs="+", default=SMALL, choices=SMALL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    lines = [
        "| model | what | all at once, each | in parts, all at once = 1 | quartiles |",
        "|---|---|---|---|---|",
    ]
    for name in arguments.models:
        for job, call in jobs(name).items():
            found = pairs(call, arguments.repeats)
            low, middle, high = statistics.quantiles([parts / whole for whole, parts in found], n=4)
            each = statistics.median(whole for whole, _ in found) / IMAGES[job]
            lines.append(
                f"| {name} | {IMAGES[job]} {job} | {1000 * each:.0f} ms | {middle:.2f} | {low:.2f} to {high:.2f} |"
            )
    text = "\n".join(lines) + (
        f"\n\nIn parts: the widest tensor of a part has at most {at_once.LARGEST / 2**20:.0f} MiB. Medians of "
        f"{arguments.repeats} pairs, float32. {describe()}.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
