"""What bfloat16, float16 and TF32 do to maps and metrics, on real weights and photos, beside float32.

    python -m experiments.precision --models ViT-tiny=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --photos folder:PATH --run runs/precision --out docs/tables/precision.md

One row per model, format and method: how often the prediction is the same, the rank correlation of the maps (mean and
lowest over photos), and the change of insertion and deletion with its standard error over the same photos. Stop it at
any time; the same command goes on.

It runs on a CPU without arithmetic of these formats. So products are made as on a GPU, whose tensor cores multiply
short numbers and add up in float32: for bfloat16 and float16 all weights and activations are in the format, and each
product of them is made in float32 and rounded; for TF32, which CPUs do not have, both sides of each product of float32
are rounded to the 10 bits of TF32 before. Forward and backward passes alike.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.bench.paper.precision import compared, comparison_lines
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.variant import Variant, parse_variant

METHODS = ("CAAP=caap", "E-CAAP=caap:attention=cached", "Libra IxG+=libra_ixg_plus", "Grad-CAM=grad_cam")
FORMATS = ("tf32", "bfloat16", "float16")
_PRODUCTS = (
    torch.ops.aten.mm,
    torch.ops.aten.bmm,
    torch.ops.aten.addmm,
    torch.ops.aten.baddbmm,
    torch.ops.aten.convolution,
    torch.ops.aten.convolution_backward,
)


class ProductsOf(TorchDispatchMode):
    """Make products as tensor cores do, see the top of this file; `name` is one of `FORMATS` or "float32"."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        if self.name == "float32":
            return function(*args, **kwargs)
        if function.overloadpacket not in _PRODUCTS:
            with self:  # in inference mode what is made of products, such as linear, comes in one piece
                parts = function.decompose(*args, **kwargs)
            return function(*args, **kwargs) if parts is NotImplemented else parts
        added = function.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.baddbmm)
        if self.name == "tf32":
            return function(*(x if added and place == 0 else _rounded(x) for place, x in enumerate(args)), **kwargs)
        short = next(x.dtype for x in args if isinstance(x, Tensor))
        found = function(*map(_wide, args), **kwargs)
        return tuple(map(_as(short), found)) if isinstance(found, tuple) else _as(short)(found)


def _rounded(x: Any) -> Any:
    """A float32 tensor with 10 bits behind the leading one, rounded to the nearest, ties away from 0, as GPUs do."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


def _as(dtype: torch.dtype) -> Any:
    return lambda x: x.to(dtype) if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.precision", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens")
    parser.add_argument("--images", type=int, default=16, help="photos, drawn with seed 0; default %(default)s")
    parser.add_argument("--steps", type=int, default=28, help="of RISE's curves; default %(default)s")
    parser.add_argument("--run", type=Path, default=Path("runs/precision"), help="where results are kept")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    shares = tuple(step / args.steps for step in range(args.steps + 1))
    results: dict[str, list[cl.BenchmarkResult]] = {}
    for text in args.models:
        for name in ("float32", *FORMATS):
            spec = parse_variant(text)
            stored = {} if name in ("float32", "tf32") else {"dtype": name}
            with sdpa_kernel(SDPBackend.MATH), ProductsOf(name):
                found = cl.benchmark(
                    Variant(spec.name, {**spec.options, **stored}, spec.label),
                    METHODS,
                    args.photos,
                    out=args.run / name,
                    images=args.images,
                    seed=0,
                    metrics=["faithfulness"],
                    protocol=CurveProtocol(f"rise, {args.steps} steps", step=shares),
                    batch_size=16,
                )
            results.setdefault(spec.label, []).append(found)
            write(results, args)


def write(results: dict[str, list[cl.BenchmarkResult]], args: argparse.Namespace) -> None:
    """Print the table of what is computed, and write it."""
    parts = []
    for reference, *others in results.values():
        for name, other in zip(FORMATS, others, strict=False):
            parts.append(compared(other, reference).assign(data=name))
    if not parts:
        return
    heads, *rows = comparison_lines(pd.concat(parts, ignore_index=True))
    heads[0] = "format"
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
    photos = args.photos.partition(":")[2].rstrip("/").rsplit("/", 1)[-1]
    text = "\n".join(lines) + (
        f"\n\n{args.images} photos of {photos} (seed 0), target the model's prediction. Maps are compared where both "
        "formats predict the same class. Spearman: rank correlation with the map in float32, mean over photos "
        "(lowest). The other columns: change against float32 in points of 100, with the standard error of the paired "
        f"differences; RISE's curves in {args.steps} steps. Products as tensor cores make them, from short numbers and "
        "added up in float32; TF32 by rounding both sides of each product to 10 bits, as this CPU has no such "
        f"arithmetic. {describe()}.\n"
    )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
