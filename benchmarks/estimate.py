"""Doctor's estimate against the clock: ``python -m benchmarks.estimate --out docs/tables/estimate.md``.

`caap-lab doctor` multiplies counted forward passes by the time of one, measured in a batch. Here whole runs of table 1
stand between two estimates, as a machine may change its pace: with a model of the demo's size by the paper's protocol,
and with ViT-tiny/16 by the protocol of fewer steps and without MDA, whose maps would take minutes. Weights are random
and photos are noise: time does not depend on them.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from benchmarks.machine import describe
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.paper.doctor import doctor
from caap_lab.bench.paper.parts import MODELS
from caap_lab.bench.paper.profiles import paper_plan
from caap_lab.bench.paper.published import names
from caap_lab.bench.paper.settings import PaperSettings, given_settings

PHOTOS = {1: "n01440764", 2: "n01751748", 3: "n09193705"}
"""ImageNet's class of the validation photo of each number."""
NAME = "ViT-L/16"
"""The model of the paper's table whose place a small one takes."""


@dataclass(frozen=True, eq=False)
class Case:
    """A run, small enough to be made for the table."""

    model: str
    arguments: dict[str, Any]
    """Of timm's ViT-tiny/16."""
    protocol: str
    without: tuple[str, ...]
    images: int


CASES = (
    Case("demo's size", {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 8, "num_heads": 4}, "rise", (), 3),
    Case("ViT-tiny/16", {"img_size": 224}, "rise-28", ("MDA",), 1),
)


@dataclass(frozen=True)
class Outcome:
    """The estimate of a run, and what it took."""

    trials: int
    passes: float
    estimated: float
    """Seconds; the mean of an estimate before the run and one after it."""
    clock: float
    """Seconds."""


def measure(case: Case, folder: Path) -> Outcome:
    """The run between two estimates."""
    settings = settings_of(case, folder)
    before, trials, passes = estimate(settings)
    plan = paper_plan(settings)
    began = time.perf_counter()
    result = run_plan(plan, folder / "run")
    clock = time.perf_counter() - began
    assert not len(result.failed)
    return Outcome(trials, passes, (before + estimate(settings)[0]) / 2, clock)


def estimate(settings: PaperSettings) -> tuple[float, int, float]:
    """Doctor's seconds, trials and passes."""
    (cost,) = doctor(settings, quick=True).costs
    assert cost.seconds is not None
    return cost.seconds, cost.trials, cost.passes


def settings_of(case: Case, folder: Path) -> PaperSettings:
    """Table 1 with one model, on photos that are written into a folder."""
    data = folder / "imagenet"
    generator = np.random.default_rng(0)
    for number, wnid in PHOTOS.items():
        path = data / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True)
        Image.fromarray(generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_tiny_patch16_224", num_classes=1000, **case.arguments)
    pixels = case.arguments["img_size"]
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, pixels, pixels)}
    arguments = {"num_classes": 1000, **case.arguments}
    save_for_hf(model, str(folder / "model"), model_args=arguments, safe_serialization=True)
    others = [name for name in MODELS if name != NAME and name in names(1, "model")]
    return given_settings(
        data=[f"imagenet:{data}"],
        models=[f"{NAME}={folder / 'model'}"],
        tables=[1],
        without=[*others, *case.without],
        images=case.images,
        protocol=case.protocol,
    )


def table(found: dict[Case, list[Outcome]]) -> str:
    """Markdown: one row per case, with medians."""
    heads = (
        "model",
        "protocol",
        "trials",
        "passes",
        "estimated",
        "on the clock",
        "clock / estimate",
        "lowest, highest",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case, outcomes in found.items():
        ratios = [one.clock / one.estimated for one in outcomes]
        cells = [case.model, case.protocol, f"{outcomes[0].trials}", f"{outcomes[0].passes:,.0f}"]
        cells += [f"{statistics.median(one.estimated for one in outcomes):.1f} s"]
        cells += [f"{statistics.median(one.clock for one in outcomes):.1f} s", f"{statistics.median(ratios):.2f}"]
        lines.append(f"| {' | '.join(cells)} | {min(ratios):.2f}, {max(ratios):.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and keep the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.estimate", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found: dict[Case, list[Outcome]] = {}
    for case in CASES:
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(case, []).append(measure(case, Path(folder)))
    text = f"{table(found)}\n\nMedians of {arguments.repeats} runs. {describe()}.\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
