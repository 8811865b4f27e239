"""The cost of rotary positions in a CAAP map: ``python -m benchmarks.rotary --out docs/tables/rotary_cost.md``.

The map of each model, with the default cutoff, and that of the same model built without them (with added positions
instead), alternately in one process. Random weights: cost does not depend on them. Times are processor times of one
thread, for the fastest of several maps: other work on the machine can only make a map slower.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks.counting import operations
from benchmarks.machine import describe
from caap_lab import HookedViT, caap

MODELS: dict[str, str] = {
    "DINOv3 ViT-S/16": "vit_small_patch16_dinov3",
    "ViT-S/16, rotary": "vit_small_patch16_rope_224",
    "ViT-S/16, rotary, mixed": "vit_small_patch16_rope_mixed_224",
    "DINOv3 ViT-B/16": "vit_base_patch16_dinov3",
}
"""Names in timm; mixed: each block and head has its own angles."""


def build(name: str, **switches: Any) -> HookedViT:
    """A model for images of 224 px and 1000 classes, whose head reads the class token."""
    torch.manual_seed(0)
    vit = timm.create_model(name, img_size=224, num_classes=1000, global_pool="token", **switches)
    return HookedViT(vit.eval())


def measure(name: str, repeats: int) -> tuple[float, float, float, float]:
    """Processor seconds of a map with and without rotary positions, their ratio, and that of counted operations."""
    models = [build(name), build(name, use_rot_pos_emb=False, use_abs_pos_emb=True)]
    image = torch.randn(1, 3, 224, 224)
    counted = [operations(model, partial(caap, model, image)) for model in models]  # which also caches the blanks' runs
    times: list[list[float]] = [[], []]
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.process_time()
            caap(models[which], image)
            times[which].append(time.process_time() - began)
    with_, without = min(times[0]), min(times[1])
    return with_, without, with_ / without, counted[0] / counted[1]


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.rotary", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| model | map with rotary positions | without | ratio, timed | ratio, counted |", "|---" * 5 + "|"]
    for model in arguments.models:
        with_, without, ratio, counted = measure(MODELS[model], arguments.repeats)
        cells = f"{with_ * 1000:.0f} ms", f"{without * 1000:.0f} ms", f"{ratio:.3f}", f"{counted:.3f}"
        lines.append(f"| {model} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    told = (
        f"White blank, 3 x 3 neighbourhood, default cutoff, float32; processor time, fastest of {arguments.repeats}. "
        f"Counted: operations of matrix products. Load when it ended {os.getloadavg()[0]:.1f}. {describe()}."
    )
    text = "\n".join([*lines, "", told, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
