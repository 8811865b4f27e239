"""Cost of the functions of `caap_lab.mechanisms` and of plain loops: time and forward passes, in one run.

    python -m experiments.mechanism_cost --out docs/tables/mechanism_cost.md

Each function, and a loop with the same results, runs on the same ViT-tiny with random weights (cost does not depend on
them), alternately, on one thread. The loops are in `mechanism_loops.py`: torch's hooks on timm's modules, cells side by
side in batches of the same size, every batch run from the image. Passes count the operations of matrix products,
backward passes included, in units of one forward pass of one image. Times are processor times of the fastest of several
runs in float32. The largest difference between the two is relative to the largest number, in float64.
"""

import argparse
import copy
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
import timm

from benchmarks.machine import describe
from caap_lab.engine.blanks import blank_image
from experiments.mechanism_loops import (
    BATCH,
    EVERY_HEAD,
    LAYERS,
    RECEIVERS,
    SENDERS,
    ablated_heads,
    estimated_tokens,
    head_shares,
    lens,
    patched_sets,
    paths_to_heads,
    paths_to_logits,
    score,
    traced_heads,
    traced_tokens,
)

NAME = "vit_tiny_patch16_224"
TOKENS = range(1, 197, 14)
"""Tokens of the trace: every fourteenth."""
TARGET = cl.contrast(0, 1)


class Case(NamedTuple):
    """A function and its plain loop, which return the same numbers."""

    name: str
    ours: Callable[[], np.ndarray]
    plain: Callable[[], np.ndarray]


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m experiments.mechanism_cost", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, alternately; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plain = random_vit()
    model = cl.HookedViT(copy.deepcopy(plain), name=NAME)
    wide_plain = copy.deepcopy(plain).double()
    wide = cl.HookedViT(copy.deepcopy(wide_plain), name=NAME)
    one_pass = counted(plain, lambda: plain(torch.zeros(1, 3, 224, 224))).operations
    lines = [
        "| | passes | passes, loop | seconds | seconds, loop | seconds, ours by the loop's | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, exact in zip(cases(model, plain), cases(wide, wide_plain), strict=True):
        ours, other = counted(wide.vit, exact.ours), counted(wide_plain, exact.plain)
        passes = [each.operations / one_pass for each in (ours, other)]
        lines.append(row(case, passes, apart(ours.result, other.result), args.repeats))
        print(lines[-1], flush=True)
    told = (
        f"{NAME} with random weights, batches of {BATCH} rows, one pair of images unless said otherwise. "
        "Passes: operations of matrix products in units of one forward pass of one image, backward passes included. "
        f"Seconds: of the processor, in float32, fastest of {args.repeats}. Largest difference: in float64, as "
        f"a share of the largest number. Load when it ended {os.getloadavg()[0]:.1f}. {describe()}."
    )
    text = "\n".join([*lines, "", told, ""])
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def apart(ours: np.ndarray, plain: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    return float(np.nanmax(np.abs(ours - plain)) / np.nanmax(np.abs(plain)))


def row(case: Case, passes: list[float], difference: float, repeats: int) -> str:
    """One row of the table."""
    times: list[list[float]] = [[], []]
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.process_time()
            (case.ours, case.plain)[which]()
            times[which].append(time.process_time() - began)
    seconds = [min(each) for each in times]
    cells = [f"{each:.1f}" for each in passes] + [f"{each:.2f}" for each in seconds]
    return f"| {case.name} | {' | '.join(cells)} | {seconds[0] / seconds[1]:.2f} | {difference:.0e} |"


def random_vit() -> Any:
    """A timm model whose attention is not uniform, as it would be with fresh weights."""
    torch.manual_seed(0)
    vit = timm.create_model(NAME).eval()
    with torch.no_grad():
        for weight in vit.parameters():
            if weight.ndim == 2:
                weight.mul_(3)
    return vit


class Counted(NamedTuple):
    """The result of `counted`."""

    result: Any
    operations: float


class Counter(TorchDispatchMode):
    """Counts like torch's FlopCounterMode, which fails while a gradient with respect to activations is computed."""

    operations = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        rule = flop_registry.get(func._overloadpacket)
        self.operations += 0 if rule is None else rule(*args, **(kwargs or {}), out_val=out)
        return out


def counted(vit: Any, call: Callable[[], Any]) -> Counted:
    """A call's result and the floating-point operations of its matrix products."""
    for block in vit.blocks:
        block.attn.fused_attn = False  # torch's rules do not know fused attention on a CPU
    try:
        with Counter() as counter:
            result = call()
    finally:
        for block in vit.blocks:
            block.attn.fused_attn = True
    return Counted(result, counter.operations)


def cases(model: cl.HookedViT, vit: Any) -> Iterator[Case]:
    """All measured functions."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.randn(8, 3, 224, 224, generator=generator).to(model.dtype)
    clean, corrupted = photos[:1], photos[1:2]
    quiet: dict[str, Any] = {"batch_size": BATCH, "progress": False}
    cells = list(itertools.product(range(LAYERS), TOKENS))
    yield Case(
        f"`trace` by token, {len(cells)} cells",
        lambda: cl.trace(model, clean, corrupted, TARGET, tokens=TOKENS, **quiet).values.reshape(-1),
        lambda: traced_tokens(vit, clean, corrupted, cells),
    )
    yield Case(
        f"`trace` by head (z), {len(EVERY_HEAD)} cells",
        lambda: cl.trace(model, clean, corrupted, TARGET, points="z", by="head", **quiet).values.reshape(-1),
        lambda: traced_heads(vit, clean, corrupted),
    )
    yield Case(
        f"`attribution_patching` by token, all {LAYERS * 197} cells",
        lambda: cl.attribution_patching(model, clean, corrupted, TARGET, **quiet).values.reshape(-1),
        lambda: estimated_tokens(vit, clean, corrupted),
    )
    yield Case(
        f"`path_patch`, {len(EVERY_HEAD)} heads to the logits",
        lambda: cl.path_patch(model, clean, corrupted, "heads", "logits", TARGET, **quiet).per_image.reshape(-1),
        lambda: paths_to_logits(vit, clean, corrupted),
    )
    senders = [f"{layer}.{head}" for layer, head in SENDERS]
    receivers = [f"{layer}.{head}.{part}" for layer, head, part in RECEIVERS]
    yield Case(
        f"`path_patch`, {len(senders)} heads to {len(receivers)} heads' q, k or v",
        lambda: cl.path_patch(model, clean, corrupted, senders, receivers, TARGET, **quiet).per_image.reshape(-1),
        lambda: paths_to_heads(vit, clean, corrupted),
    )
    yield Case(
        f"`logit_attribution` by head, {len(photos)} images",
        lambda: cl.logit_attribution(model, photos, TARGET, by="head", **quiet).per_image.reshape(-1),
        lambda: head_shares(vit, photos),
    )
    yield Case(
        f"`logit_lens`, all tokens of {len(photos)} images",
        lambda: cl.logit_lens(model, photos, target=TARGET, **quiet).per_image.reshape(-1),
        lambda: lens(vit, photos),
    )
    some = photos[:4]
    yield Case(
        f"`ablate_heads` with the mean, {len(EVERY_HEAD)} heads, {len(some)} images",
        lambda: cl.ablate_heads(model, some, TARGET, **quiet).per_image.reshape(-1),
        lambda: ablated_heads(vit, some),
    )
    pairs = cl.caap_interactions(model, clean, TARGET, progress=False)
    blank = blank_image(model, "white", 0)
    assert blank is not None
    masks, cutoff = torch.as_tensor(pairs.sets.masks), int(pairs.data.attrs["cutoff"])

    def interactions() -> np.ndarray:
        kept = cl.caap_interactions(model, clean, TARGET, progress=False).kept
        assert kept is not None
        return score(kept.logits[0])

    yield Case(
        f"`caap_interactions` of the top 10, {len(masks)} sets of patches",
        interactions,
        lambda: patched_sets(vit, clean, blank, masks, cutoff),
    )


if __name__ == "__main__":
    main()
