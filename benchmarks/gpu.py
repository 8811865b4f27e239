"""Forwards, maps and curves per second on a GPU: ``python -m benchmarks.gpu --out docs/tables/gpu.md`` (`make gpu`).

For ViT-B/16, ViT-L/16 and DINOv2-g/14 with random weights: plain forward passes at the batch size that gives most
forwards per second, exact maps of many images and of one, insertion and deletion curves, one forward per patch, and the
installed peers: Score-CAM of pytorch-grad-cam and FeatureAblation of captum, each next to our own. Times are in
forwards of the same model, timed just before and after each, and as a fraction of the device's rate in one large matrix
product. ``--device cpu --models small`` runs the same with a small model.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

import caap_lab as cl
from benchmarks.counting import operations, timed
from benchmarks.machine import describe
from caap_lab.engine.blanks import blank_run
from caap_lab.engine.patched_logits import logits_of_vit
from caap_lab.engine.plan import plan_of
from caap_lab.engine.settings import CaapSettings

MODELS: dict[str, dict[str, Any]] = {
    "ViT-B/16": {"model_name": "vit_base_patch16_224", "num_classes": 1000},
    "ViT-L/16": {"model_name": "vit_large_patch16_224", "num_classes": 1000},
    "DINOv2-g/14": {"model_name": "vit_giant_patch14_reg4_dinov2", "num_classes": 1000, "img_size": 224},
    "small": {"model_name": "vit_tiny_patch16_224", "num_classes": 10, "img_size": 64, "depth": 3},
}
FORWARD_BATCHES = (16, 32, 64, 128, 256)
MAP_BATCHES = (16, 32, 64)
LARGEST_PRODUCT = {"cpu": 512, "cuda": 8192}
GIB = 2**30


@dataclass
class Row:
    """One row of the table."""

    what: str
    each: float
    """Seconds for one."""
    forwards: float
    """The same in forward passes of one image."""
    counted: float | None = None
    """Operations of matrix products, in forward passes."""
    share: float | None = None
    """Fraction of the matrix rate."""
    memory: int | None = None
    """Most bytes held at once besides the model."""
    noted: str = ""


@dataclass
class Measured:
    """The rows of one model."""

    name: str
    rows: list[Row] = field(default_factory=list)

    def table(self) -> list[str]:
        """The rows in Markdown."""
        lines = []
        for row in self.rows:
            cells = [
                self.name,
                row.what,
                _rate(row.each),
                f"{row.forwards:.2f}" if row.forwards < 50 else f"{row.forwards:.0f}",
            ]
            cells.append("" if row.counted is None else f"{row.counted:.2f}")
            cells.append("" if row.share is None else f"{row.share:.0%}")
            cells.append("" if row.memory is None else f"{row.memory / GIB:.1f} GiB")
            lines.append(f"| {' | '.join([*cells, row.noted])} |")
        return lines


HEADER = ("model", "what", "per second", "in forwards, timed", "counted", "of the matrix rate", "memory", "how")


def measure(name: str, device: str, dtype: str, repeats: int, rate: float, limits: tuple[int, ...] = ()) -> Measured:
    """All measurements of one model.

    Args:
        name: One of `MODELS`.
        device: Device on which it runs.
        dtype: Number format of its weights.
        repeats: How often each is measured; medians are reported.
        rate: Operations per second of a large matrix product in this format.
        limits: Batch sizes of forward passes instead of `FORWARD_BATCHES`; maps use at most the largest.
    """
    model = build(name, device, dtype)
    forward_batches = limits or FORWARD_BATCHES
    map_batches = [batch for batch in MAP_BATCHES if batch <= max(forward_batches)] or [1]
    images = torch.randn(max(forward_batches), 3, *model.image_size).to(model.device, model.dtype)
    found = Measured(name)

    @torch.no_grad()
    def forward(batch: int) -> Tensor:
        return model(images[:batch])

    one = operations(model, lambda: forward(1))
    seconds = {batch: _median(partial(forward, batch), repeats) / batch for batch in forward_batches}
    best = min(seconds, key=lambda batch: seconds[batch])
    plain = seconds[best]
    found.rows.append(
        Row("forward pass", plain, 1, 1, one / plain / rate, _peak(lambda: forward(best), device), f"batch of {best}")
    )

    def compared(call: Callable[[], Any], count: int, repeats: int = repeats) -> tuple[float, float]:
        """Seconds for one of `count`, and the same in forwards, timed alternately with forward passes."""
        call()
        taken, ratios = [], []
        for _ in range(repeats):
            before = timed(lambda: forward(best))
            taken.append(timed(call) / count)
            ratios.append(taken[-1] / ((before + timed(lambda: forward(best))) / 2 / best))
        return statistics.median(taken), statistics.median(ratios)

    def maps(count: int, batch: int, **options: Any) -> Callable[[], Any]:
        options = {"target": 0, "batch_size": batch, "max_memory": 32.0, "progress": False, **options}
        return lambda: cl.caap(model, images[:count], **options)

    plan, blank = plan_of(model, CaapSettings()), blank_run(model, "white")

    def scores(batch: int) -> Callable[[], Any]:
        return lambda: logits_of_vit(model, images[:batch], [plan], blank, batch * model.spec.n_patches, own=False)

    with patch("caap_lab.engine.attend.fits", lambda *_: False):  # torch's counter does not know the kernel
        counted = {what: operations(model, maps(1, 1, tail=what)) for what in ("exact", "shared")}
    tried = {batch: compared(scores(batch), batch, 2) for batch in map_batches}
    most = min(tried, key=lambda batch: tried[batch][0])
    count = min(4 * most, len(images))

    def add(what: str, call: Callable[[], Any], of: int, operations: float, noted: str = "") -> None:
        each, ratio = compared(call, of)
        peak = _peak(call, device)
        found.rows.append(Row(what, each, ratio, operations / one, operations / each / rate, peak, noted))

    exact, shared = counted["exact"], counted["shared"]
    add("exact map, scores on the GPU", scores(most), most, exact, noted=f"{most} images at once")
    add("exact map", maps(count, most), count, exact, noted=f"{count} images, {most} at once")
    add("map, shared tail", maps(count, most, tail="shared"), count, shared, noted=f"{count} images, {most} at once")
    add("exact map of one image", maps(1, 1), 1, exact)
    each, ratio = compared(maps(1, 1, context="free", chunk_size=best), 1, 2)
    found.rows.append(Row("one forward per patch", each, ratio, model.spec.n_patches, noted=f"batches of {best}"))

    given = [m for m in _listed(cl.attribute(model, images[:2], "rollout", 0, progress=False))]

    def curves() -> Any:
        return cl.insertion_deletion(model, images[:2], given, batch_size=best, progress=False)

    points = sum(2 * len(curve.shares) for curve in _listed(curves()))
    add("changed image of a curve", curves, points, one, noted=f"batches of {best}; {points // 4} steps")
    for what, call, passes in peers(model, images[:1], best):
        each, ratio = compared(call, 1, 1)
        found.rows.append(Row(what, each, ratio, passes))
    return found


def build(name: str, device: str, dtype: str) -> cl.HookedViT:
    """A model with random weights drawn on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        vit = timm.create_model(**MODELS[name], pretrained=False)
    return cl.HookedViT(vit.eval()).to(dtype=getattr(torch, dtype))


def peers(model: cl.HookedViT, image: Tensor, batch: int) -> Iterable[tuple[str, Callable[[], Any], float | None]]:
    """Methods of other installed libraries, each after our own, and the forward passes that they take."""
    vit: Any = model.vit
    grid, width, n_patches = model.grid, model.spec.d_model, model.spec.n_patches
    yield "Score-CAM, ours", lambda: cl.attribute(model, image, "score_cam", 0, batch_size=batch), width + 1
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import ScoreCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        def reshape(tokens: Tensor) -> Tensor:
            return tokens[:, model.spec.n_prefix :].transpose(1, 2).unflatten(2, grid).float()

        class Wide(nn.Module):
            """Scores in float32, because grad-cam turns them into NumPy arrays."""

            def __init__(self) -> None:
                super().__init__()
                self.vit = vit

            def forward(self, images: Tensor) -> Tensor:
                return self.vit(images.to(model.dtype)).float()

        def score_cam() -> Any:
            with ScoreCAM(Wide(), [vit.blocks[-1].norm1], reshape_transform=reshape) as cam:
                cam.batch_size = batch
                cam.device = model.device
                return cam(input_tensor=image, targets=[ClassifierOutputTarget(0)])

        yield "Score-CAM, pytorch-grad-cam", score_cam, width + 1
    yield "occlusion, ours", lambda: cl.attribute(model, image, "occlusion", 0, batch_size=batch), n_patches + 1
    if find_spec("captum"):
        from captum.attr import FeatureAblation

        rows, cols = (torch.arange(side, device=model.device) for side in model.image_size)
        features = rows[:, None] // model.patch_size[0] * grid[1] + cols // model.patch_size[1]

        @torch.no_grad()
        def ablation() -> Any:
            return FeatureAblation(vit).attribute(
                image, target=0, feature_mask=features[None, None], perturbations_per_eval=batch
            )

        yield "FeatureAblation, captum", ablation, n_patches + 1


def matrix_rate(device: str, dtype: str, repeats: int = 5) -> float:
    """Operations per second of one product of square matrices, large enough to keep the device busy."""
    size = LARGEST_PRODUCT.get(device, 4096)
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    products = 1 if device == "cpu" else 10

    def call() -> None:
        for _ in range(products):
            torch.mm(left, right)

    call()
    return 2 * size**3 * products / statistics.median(timed(call) for _ in range(repeats))


def _median(call: Callable[[], Any], repeats: int) -> float:
    call()
    return statistics.median(timed(call) for _ in range(repeats))


def _peak(call: Callable[[], Any], device: str) -> int | None:
    """Most bytes that a call holds at once on a GPU, beyond those held before it."""
    if device == "cpu":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _rate(seconds: float) -> str:
    per_second = 1 / seconds
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.3g}"


def report(found: list[Measured], device: str, dtype: str, repeats: int, rate: float, took: float) -> str:
    """The table in Markdown, and what it was measured on."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [line for measured in found for line in measured.table()]
    missing = [
        name
        for name, module in (("pytorch-grad-cam", "pytorch_grad_cam"), ("captum", "captum"))
        if not find_spec(module)
    ]
    left_out = f" Not installed: {' and '.join(missing)}." if missing else ""
    told = (
        f"{dtype}, random weights; medians of {repeats}. Maps: two thirds of the blocks patched, white blank, 3 x 3 "
        "neighbourhood, target given, images on the device. Memory besides the model. Matrix rate: "
        f"{rate / 1e12:.3g} TFLOP/s, of a product of two square matrices of {LARGEST_PRODUCT.get(device, 4096)}."
        f"{left_out} {describe(device)}. All in {took:.0f} s."
    )
    return "\n".join([*lines, "", told, ""])


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["ViT-B/16", "ViT-L/16", "DINOv2-g/14"], choices=list(MODELS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[], help="batch sizes of forward passes to try")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    began = time.perf_counter()
    rate = matrix_rate(arguments.device, arguments.dtype)
    found = []
    for name in arguments.models:
        batches = tuple(arguments.batches)
        found.append(measure(name, arguments.device, arguments.dtype, arguments.repeats, rate, batches))
        took = time.perf_counter() - began
        text = report(found, arguments.device, arguments.dtype, arguments.repeats, rate, took)
        if arguments.out:
            arguments.out.write_text(text)
        print("\n".join(found[-1].table()), flush=True)
    print(text)


if __name__ == "__main__":
    main()
