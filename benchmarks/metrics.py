"""Throughput of insertion and deletion against the same model's plain forward passes, at the same batch size.

    python -m benchmarks.metrics --out docs/tables/metrics_speed.md

Prints Markdown. Each of a map's two curves has the 224 steps of the default protocol, RISE. Plain passes and evaluation
alternate in one run; numbers are medians over the repeats. Weights are random unless the model is bundled: they do not
change the time.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.metrics.perturbation import PerturbationCurves
from caap_lab.models.base import HookedModel
from caap_lab.models.load import bundled_models


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["demo", "vit_tiny_patch16_224"])
    parser.add_argument("--batch-size", type=int, default=32, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    lines = [
        f"{describe()}; fp32, RISE protocol (224 steps), batches of {args.batch_size}, medians of {args.repeats}.",
        "",
        "| model | plain, images per second | evaluation, images per second | ratio |",
        "|---|---|---|---|",
    ]
    for name in args.models:
        model = load(name)
        size = model.preprocessing.image_size
        image = torch.randn(1, 3, *size)
        m = cl.attribute(model, image, "input_x_gradient", 0)
        assert isinstance(m, cl.AttributionMap)
        points = 2 * len(evaluate(model, image, m, args.batch_size).shares)  # and warm
        inputs = torch.randn(points, 3, *size)
        plain, evaluated = [], []
        for _ in range(args.repeats):
            began = time.perf_counter()
            with torch.no_grad():
                for batch in inputs.split(args.batch_size):
                    model(batch)
            middle = time.perf_counter()
            evaluate(model, image, m, args.batch_size)
            plain.append(points / (middle - began))
            evaluated.append(points / (time.perf_counter() - middle))
        ratio = statistics.median(b / a for a, b in zip(plain, evaluated, strict=True))
        lines.append(f"| {name} | {statistics.median(plain):.1f} | {statistics.median(evaluated):.1f} | {ratio:.1%} |")
    table = "\n".join(lines)
    print(table)
    if args.out is not None:
        args.out.write_text(table + "\n", encoding="utf-8")


def load(name: str) -> HookedModel:
    """A bundled model, or timm's model with random weights."""
    if name in bundled_models():
        return cl.load_model(name)
    import timm

    return cl.HookedViT(timm.create_model(name, pretrained=False))


def evaluate(model: HookedModel, image: torch.Tensor, m: cl.AttributionMap, batch_size: int) -> PerturbationCurves:
    """Both curves of one map."""
    found = cl.insertion_deletion(model, image, m, batch_size=batch_size)
    assert isinstance(found, PerturbationCurves)
    return found


if __name__ == "__main__":
    main()
