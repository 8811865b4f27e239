"""CAAP's cost in forward passes of the same model: ``python -m benchmarks.caap --out docs/tables/cost.md``.

For ViT-tiny, -small and -base (random weights: cost does not depend on them), with the default cutoff: maps and their
approximations, sweeps over all cutoffs, four images at once, one forward per patch, where the time goes, and the
machine's matrix rate. On a GPU: ``--device cuda --dtype bfloat16 --models ViT-large/16 DINOv2-g/14``; there, the time
for which the GPU works shows where the rest goes. Each model runs in a separate process. A time in forwards is the
median of ratios, each to forward passes just before and after it, because a machine's speed may drift.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks.counting import busy_seconds, matrix_rate, operations, shares, timed
from benchmarks.machine import describe
from caap_lab import HookedViT, Patch, caap, tokens
from caap_lab.attribution.caap_maps import caap_maps
from caap_lab.engine.blanks import blank_run
from caap_lab.engine.settings import CaapSettings, cutoff_blocks

MODELS = {f"ViT-{name}/16": f"vit_{name}_patch16_224" for name in ("tiny", "small", "base", "large")}
MODELS["DINOv2-g/14"] = "vit_giant_patch14_reg4_dinov2"
SMALL = list(MODELS)[:3]
VARIANTS: dict[str, dict[str, Any]] = {
    "map": {},
    "map, target given": {"target": 0},
    "E-CAAP": {"attention": "cached"},
    "interpolated tail": {"tail": "interpolated"},
    "shared tail": {"tail": "shared"},
    "E-CAAP, shared tail": {"attention": "cached", "tail": "shared"},
}
SWEEPS: dict[str, dict[str, Any]] = {
    "cutoffs": {},
    "cutoffs, interpolated tail": {"tail": "interpolated"},
    "cutoffs, shared tail": {"tail": "shared"},
}
BATCH = 4


def measure(name: str, repeats: int, threads: int, naive: bool, device: str, dtype: str) -> dict[str, Any]:
    """Seconds, ratios and counted operations for one model."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build(name, device).to(dtype=getattr(torch, dtype))
    images = torch.randn(BATCH, 3, *model.spec.image_size).to(model.device, model.dtype)
    image = images[:1]
    blank = blank_run(model, "white")

    @torch.no_grad()
    def forward() -> None:
        model(image)

    calls: dict[str, Callable[[], Any]] = {what: _map_call(model, image, options) for what, options in VARIANTS.items()}
    calls |= {f"{model.n_layers} {what}": _sweep_call(model, image, options) for what, options in SWEEPS.items()}
    calls[f"{BATCH} images, each"] = lambda: caap(model, images, progress=False)
    found: dict[str, Any] = {"rows": {}, "patches": model.spec.n_patches}
    found["forward operations"] = operations(model, forward)
    seconds: list[float] = []
    for what, call in calls.items():
        images_of = BATCH if "images" in what else 1
        ratio, taken = _ratio(call, forward, repeats, seconds)
        counted = operations(model, call)
        found["rows"][what] = (ratio / images_of, taken / images_of, counted / images_of)
    found["forward"] = statistics.median(seconds)
    found["matrix rate"] = matrix_rate(model, rows=1600)
    if model.device.type == "cpu":
        found["shares"] = {what: shares(calls[what]) for what in ("map", "shared tail")}
    else:
        short = {"forward pass": forward} | {what: call for what, call in calls.items() if "cutoffs" not in what}
        found["busy"] = {what: busy_seconds(call) for what, call in short.items()}
    if naive:
        found["one forward per patch"] = _naive(model, image, blank.resid[0])
    return found


def build(name: str, device: str = "cpu") -> HookedViT:
    """One of `MODELS` with random weights, drawn on the device, and 1000 classes."""
    with torch.device(device):
        vit = timm.create_model(MODELS[name], pretrained=False, num_classes=1000, img_size=224)
    return HookedViT(vit.eval())


def _ratio(
    call: Callable[[], Any], forward: Callable[[], Any], repeats: int, seconds: list[float]
) -> tuple[float, float]:
    """Medians of a call's time in forwards and in seconds; the forwards' seconds are added to `seconds`."""
    call()
    ratios, times = [], []
    for _ in range(repeats):
        near = [timed(forward) for _ in range(3)]
        times.append(timed(call))
        near += [timed(forward) for _ in range(3)]
        seconds += near
        ratios.append(times[-1] / statistics.median(near))
    return statistics.median(ratios), statistics.median(times)


def _naive(model: HookedViT, image: torch.Tensor, embeddings: torch.Tensor) -> float:
    """Seconds that one patched forward pass per patch takes."""
    source = model.record(image, "resid_pre", layers=range(cutoff_blocks(None, model.n_layers)), progress=False)
    start = Patch("resid_pre", [0], source=embeddings)
    began = time.perf_counter()
    with torch.no_grad():
        for row in range(model.spec.grid[0]):
            for col in range(model.spec.grid[1]):
                near = tokens.neighbourhood(row, col)
                patch = Patch("resid_pre", range(cutoff_blocks(None, model.n_layers)), near, source=source)
                model.run_patched(torch.zeros_like(image), [start, patch])
    return time.perf_counter() - began


def start_times(repeats: int = 7) -> dict[str, float]:
    """Median seconds that an import, or the command line's help, takes."""
    program = Path(sys.executable).with_name("caap-lab")
    commands = {
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import caap_lab": [sys.executable, "-c", "import caap_lab"],
        "caap-lab --help": [str(program), "--help"],
    }
    found = {}
    for what, command in commands.items():
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        found[what] = statistics.median(times)
    return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row per model and variant."""
    on_gpu = any("busy" in found for found in results.values())
    names = ["model", "what", "time", "in forwards, timed", "in forwards, counted", "share of the matrix rate"]
    names += ["GPU works"] if on_gpu else []
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for model, found in results.items():
        one, rate, naive = found["forward operations"], found["matrix rate"], found.get("one forward per patch")
        rows = [("forward pass", _ms(found["forward"]), "1", "1", one / found["forward"] / rate)]
        for what, (ratio, seconds, counted) in found["rows"].items():
            rows.append((what, _ms(seconds), f"{ratio:.2f}", f"{counted / one:.2f}", counted / seconds / rate))
        if naive:
            times = f"{naive / found['forward']:.0f}", f"{found['patches']}"
            rows.append(("one forward per patch", f"{naive:.1f} s", *times, found["patches"] * one / naive / rate))
        for *cells, share in rows:
            busy = found.get("busy", {}).get(cells[0])
            if busy is not None:
                busy /= BATCH if "images" in cells[0] else 1
            lines.append(f"| {model} | {' | '.join(cells)} | {share:.0%} |" + (f" {_ms(busy)} |" if on_gpu else ""))
    return "\n".join(lines)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"


def shares_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: where the time goes."""
    kinds = list(next(iter(results.values()))["shares"]["map"])
    lines = ["| model | what | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for model, found in results.items():
        for what, parts in found["shares"].items():
            cells = " | ".join(f"{parts[kind]:.0%}" for kind in kinds)
            lines.append(f"| {model} | {what} | {cells} |")
    return "\n".join(lines)


def start_table() -> str:
    """Markdown: start times, and whether the help stays within its bound."""
    found = start_times()
    bound = 1.5 * found["import numpy"] + 0.3
    lines = ["| what | seconds |", "|---|---|", *(f"| `{what}` | {took:.2f} |" for what, took in found.items())]
    kept = "kept" if found["caap-lab --help"] <= bound else "broken"
    return "\n".join([*lines, f"| bound for the help: 1.5 x numpy + 0.3 s | {bound:.2f}, {kept} |"])


def _map_call(model: HookedViT, image: torch.Tensor, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: caap(model, image, **options)


def _sweep_call(model: HookedViT, image: torch.Tensor, options: dict[str, Any]) -> Callable[[], Any]:
    settings = [CaapSettings(cutoff=cutoff, **options) for cutoff in range(1, model.n_layers + 1)]
    return lambda: caap_maps(model, image, None, settings, batch_size=1)


def main() -> None:
    """Measure, print and save the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.caap", description=__doc__)
    parser.add_argument("--models", nargs="+", default=SMALL, choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-naive", action="store_true", help="skip one forward per patch, which takes minutes")
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file and others next to it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    context = multiprocessing.get_context("spawn")
    for name in arguments.models:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            job = pool.submit(
                measure,
                name,
                arguments.repeats,
                arguments.threads,
                not arguments.no_naive,
                arguments.device,
                arguments.dtype,
            )
            results[name] = job.result()
    rates = ", ".join(f"{name} {found['matrix rate'] / 1e9:.0f}" for name, found in results.items())
    load = os.getloadavg()[0]
    told = (
        f"Patched: two thirds of the blocks; white blank, 3 x 3 neighbourhood, {arguments.dtype}; medians of "
        f"{arguments.repeats}. Counted: matrix operations of torch's counter. Matrix rate: that of a product of 1600 x "
        f"width and width x 4 width, in GFLOP/s: {rates}. Load when it ended {load:.1f}. {describe(arguments.device)}."
    )
    texts = {"": f"{table(results)}\n\n{told}\n"}
    if arguments.device == "cpu":
        texts["_profile"] = f"{shares_table(results)}\n\nShares of processor time, by torch's profiler.\n"
        texts["_start"] = f"{start_table()}\n"
    for ending, text in texts.items():
        print(text)
        if arguments.out:
            arguments.out.with_stem(arguments.out.stem + ending).write_text(text)


if __name__ == "__main__":
    main()
