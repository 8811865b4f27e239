"""CAAP's cost in forward passes of the same model: ``python -m benchmarks.caap``.

For ViT-tiny, -small and -base (random weights: cost does not depend on them), on one image with cutoff 8 of 12: the
time of a forward pass, of a map and of its approximations, of one forward a patch, and the memory that a map takes
above the forward pass's own. Each model runs in a process of its own; times are medians.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import describe
from caap_lab import HookedViT, Patch, caap, tokens
from caap_lab.context.blanks import blank_run
from caap_lab.hooked.block import attention_of

MODELS = {name: f"vit_{name}_patch16_224" for name in ("tiny", "small", "base")}
CUTOFF = 8
VARIANTS: dict[str, dict[str, Any]] = {
    "map": {},
    "map, target given": {"target": 0},
    "E-CAAP": {"attention": "cached"},
    "shared tail": {"tail": "shared"},
    "E-CAAP, shared tail": {"attention": "cached", "tail": "shared"},
}


def measure(name: str, repeats: int, threads: int, naive: bool) -> dict[str, float]:
    """Seconds, counted operations and megabytes for one model."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = HookedViT(timm.create_model(MODELS[name], pretrained=False))
    image = torch.randn(1, 3, *model.spec.image_size)
    with torch.no_grad():
        found = {
            "forward": _seconds(lambda: model(image), repeats),
            "forward operations": _operations(model, lambda: model(image)),
        }
    blank = blank_run(model, "white")
    before = _peak_megabytes()
    caap(model, image, cutoff=CUTOFF)
    found["megabytes"] = _peak_megabytes() - before
    for variant, options in VARIANTS.items():
        call = _map_call(model, image, options)
        found[variant] = _seconds(call, repeats)
        found[f"{variant} operations"] = _operations(model, call)
    with torch.no_grad():  # the machine may have changed its pace
        found["forward"] = statistics.median([found["forward"], _seconds(lambda: model(image), repeats)])
    if naive:
        source = model.record(image, "resid_pre", layers=range(CUTOFF), progress=False)
        white = torch.zeros_like(image)
        start = Patch("resid_pre", [0], source=blank.resid[0])
        began = time.perf_counter()
        with torch.no_grad():
            for row in range(model.spec.grid[0]):
                for col in range(model.spec.grid[1]):
                    near = tokens.neighbourhood(row, col)
                    model.run_patched(white, [start, Patch("resid_pre", range(CUTOFF), near, source=source)])
        found["one forward a patch"] = time.perf_counter() - began
    return found


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: one row a model and variant."""
    lines = [
        "| model | what | time | in forwards, timed | in forwards, counted |",
        "|---|---|---|---|---|",
    ]
    for model, found in results.items():
        forward, operations = found["forward"], found["forward operations"]
        lines.append(f"| ViT-{model}/16 | forward pass | {forward * 1000:.0f} ms | 1 | 1 |")
        for variant in VARIANTS:
            counted = found[f"{variant} operations"] / operations
            lines.append(
                f"| ViT-{model}/16 | {variant} | {found[variant] * 1000:.0f} ms | {found[variant] / forward:.2f} "
                f"| {counted:.2f} |"
            )
        if "one forward a patch" in found:
            naive = found["one forward a patch"]
            lines.append(
                f"| ViT-{model}/16 | one forward a patch | {naive:.1f} s | {naive / forward:.0f} "
                f"| 196; {naive / found['map']:.0f} times the map |"
            )
        lines.append(f"| ViT-{model}/16 | memory of the map above the forward's | {found['megabytes']:.0f} MB | | |")
    return "\n".join(lines)


def _map_call(model: HookedViT, image: torch.Tensor, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: caap(model, image, cutoff=CUTOFF, **options)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _operations(model: HookedViT, call: Callable[[], Any]) -> float:
    attentions = [attention_of(model.block(layer)) for layer in range(model.spec.n_layers)]
    for attention in attentions:
        attention.fused_attn = False  # type: ignore[misc]  # torch's counter does not know the fused one on CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    for attention in attentions:
        attention.fused_attn = True  # type: ignore[misc]
    return counter.get_total_flops()


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-naive", action="store_true", help="leave out one forward a patch, which takes minutes")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    context = multiprocessing.get_context("spawn")
    for name in arguments.models:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            job = pool.submit(measure, name, arguments.repeats, arguments.threads, not arguments.no_naive)
            results[name] = job.result()
    text = (
        f"{table(results)}\n\nOne image, cutoff {CUTOFF} of 12, white blank, 3 x 3 neighbourhood, fp32; medians of "
        f"{arguments.repeats}. Counted: matrix operations of torch's counter. {describe()}.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
