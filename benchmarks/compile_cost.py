"""What compile=True costs at first and saves afterwards.

    python -m benchmarks.compile_cost --out docs/tables/compile.md

The same timm model, with random weights, which do not change the time, once with and once without compiled blocks. Both
run alternately in one process; ratios are medians over these pairs. Times are processor times of one thread, as other
work on the machine changes the clock more than that. First use counts all processes that compile.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

import caap_lab as cl
from benchmarks.machine import describe

MODELS = {"ViT-Ti/16": "vit_tiny_patch16_224", "ViT-B/16": "vit_base_patch16_224"}
"""Names in timm."""


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.compile_cost", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batch-size", type=int, default=16, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of runs; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| model | use | eager | compiled / eager | quartiles | first use |", "|---" * 6 + "|"]
    with tempfile.TemporaryDirectory() as folder:  # no compilation of an earlier run
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        for name in arguments.models:
            body = timm.create_model(MODELS[name], pretrained=False)
            models = [cl.wrap(body), cl.wrap(body, compile=True)]
            torch.compiler.reset()
            for use, run in uses(models[0], arguments.batch_size).items():
                lines.append(f"| {name} | {use} | {' | '.join(measure(run, models, arguments.repeats))} |")
                print(lines[-1], flush=True)
    told = (
        f"Processor seconds of one thread, medians of {arguments.repeats} pairs, float32. First use: seconds more than "
        "a later run, with what the rows above it have compiled already. Load when it ended "
        f"{os.getloadavg()[0]:.1f}. {describe()}."
    )
    text = "\n".join([*lines, "", told, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def uses(model: Any, batch_size: int) -> dict[str, Callable[[Any], Any]]:
    """What is measured, by name, as functions of a model; `model` makes the map of the curves."""
    images = torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    image = images[:1]
    m = cl.caap(model, image, 0, progress=False)
    curves: Any = {"protocol": "rise-28", "batch_size": batch_size, "progress": False}
    method = partial(cl.attribute, images=images, method="input_x_gradient", target=0, progress=False)
    return {
        f"forward pass, {batch_size} images": torch.no_grad()(lambda model: model(images)),
        "forward pass, 1 image": torch.no_grad()(lambda model: model(image)),
        "CAAP map": lambda model: cl.caap(model, image, 0, progress=False),
        f"CAAP maps, {batch_size} images": lambda model: cl.caap(model, images, 0, progress=False),
        "insertion and deletion, 28 steps": lambda model: cl.insertion_deletion(model, image, m, **curves),
        f"gradient times input, {batch_size} images": method,
    }


def measure(run: Callable[[Any], Any], models: list[Any], repeats: int) -> tuple[str, str, str, str]:
    """Eager seconds, the ratio of compiled to eager ones with its quartiles, and the extra seconds of the first use."""
    run(models[0])
    first = seconds(run, models[1])
    pairs = []
    for turn in range(repeats):
        times = {which: seconds(run, models[which]) for which in ((0, 1) if turn % 2 else (1, 0))}
        pairs.append((times[0], times[1]))
    ratios = [compiled / eager for eager, compiled in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    eager, compiled = (statistics.median(column) for column in zip(*pairs, strict=True))
    return (
        f"{eager:.2f} s",
        f"{statistics.median(ratios):.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{max(0, first - compiled):.0f} s",
    )


def seconds(run: Callable[[Any], Any], model: Any) -> float:
    """Processor seconds of this process and of the compilers that it starts."""
    began = time.process_time() + sum(os.times()[2:4])
    run(model)
    return time.process_time() + sum(os.times()[2:4]) - began


if __name__ == "__main__":
    main()
