"""Time of a whole benchmark against its counted forward passes alone.

    python -m benchmarks.bench_cells --out docs/tables/bench_cells.md

Prints Markdown. The counted passes are those of the maps, as the methods declare them (a backward pass counts as two
forward passes), and the changed images of the curves, of which the unchanged image and its bases run once per image.
They are multiplied by the time of a plain forward pass in batches of the same size, measured before and after each run:
of as many images as the benchmark runs at once, which on a CPU is fewer than the batch size if that is quicker.
All times are processor time of one thread, which other programs change little; figures are medians over the repeats.
Weights are random where the model is not a bundled one: they do not change the time. The larger model has the protocol
with fewer steps, of which more would only bring the benchmark closer to its passes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import caap_lab as cl
from benchmarks.machine import describe
from benchmarks.metrics import load
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS as ALL
from caap_lab.metrics.protocol import curve_protocol
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import HookedModel

METHODS = (
    "caap",
    "grad_cam",
    "rollout",
    "transformer_attribution",
    "tam",
    "ixg_plus",
    "libra_ixg_plus",
    "gen_att",
    "input_x_gradient",
)
CASES = (("demo", "rise", 16), ("vit_tiny_patch16_224", "rise-28", 4))
"""Models, protocols of the curves, and numbers of images."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.bench_cells", description=__doc__)
    parser.add_argument("--models", nargs="+", help="only these", default=[name for name, *_ in CASES])
    parser.add_argument("--batch-size", type=int, default=64, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{describe()}; fp32, {len(METHODS)} methods, images with masks, batches of {args.batch_size}, medians of "
        f"{args.repeats}.",
        "",
        "| model | protocol | images | counted passes | of these for curves | passes alone, s | benchmark, s | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, protocol, images in CASES:
        if name in args.models:
            lines.append(row(name, load(name), images, protocol, args.batch_size, args.repeats))
            print(lines[-1], flush=True)
    table = "\n".join(lines)
    print(table)
    if args.out is not None:
        args.out.write_text(table + "\n", encoding="utf-8")


def row(name: str, model: HookedModel, images: int, protocol: str, batch_size: int, repeats: int) -> str:
    """The table's row of a model."""
    size = ModelSize.of(model)
    points = len(curve_protocol(protocol).counts(model.image_size, model.grid))
    curves = images * (2 * points + (len(METHODS) - 1) * 2 * (points - 2))
    passes = curves + images * sum(ALL[method].passes(size) for method in METHODS)
    at_once = images_at_once(model, batch_size)
    batch = torch.randn(at_once, 3, *model.image_size)

    def plain() -> None:
        with torch.no_grad():
            model(batch)

    def whole(count: int) -> None:
        with TemporaryDirectory() as out:
            result = cl.benchmark(
                model,
                METHODS,
                "demo:single",
                out=out,
                images=count,
                protocol=protocol,
                batch_size=batch_size,
                progress=False,
            )
            assert result.failed.empty

    whole(1)
    alone, taken = [], []
    for _ in range(repeats):
        before = seconds(plain)
        taken.append(seconds(lambda: whole(images)))
        alone.append((before + seconds(plain)) / 2 / at_once * passes)
    share = statistics.median(a / b for a, b in zip(alone, taken, strict=True))
    return (
        f"| {name} | {protocol} | {images} | {passes:.0f} | {curves / passes:.1%} | {statistics.median(alone):.1f} | "
        f"{statistics.median(taken):.1f} | {share:.1%} |"
    )


def seconds(call: Callable[[], Any]) -> float:
    """Processor time of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
