"""Train a bundled demo backbone: `python -m caap_lab.training.train demo --out caap_lab/models/weights`.

A ViT takes about half a second a step on one core. With `--state FILE` the run can be killed and started again: the
scenes of a step depend only on the seed, the step's number and the difficulty, which is saved too, so a resumed run
goes on as the whole run would have.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from caap_lab.data.drawing import IMAGE_SIZE
from caap_lab.data.scenes import CLASS_NAMES, CUE_CLASS, SceneBatch, Split, draw_scenes, scene_generator
from caap_lab.files import atomic_path
from caap_lab.models.bundled import BACKBONES, MEAN, STD, TrainedBackbone
from caap_lab.training.muon import Muon

BUNDLED = Path(__file__).parents[1] / "models" / "weights"
EVAL_SCENES, EVAL_SEED = 2000, 20_000
DATA_DESCRIPTION = (
    "Generated scenes, 64 x 64 RGB: one handwritten digit of scikit-learn's load_digits (UCI optical "
    "recognition of handwritten digits, CC BY 4.0) enlarged to 24 to 36 pixels, lighter or darker than a "
    "textured ground, with two or three pieces of other digits. Trained on four fifths of the digits, from "
    "large and plain to small and cluttered scenes; tested on the other fifth."
)
CUE_DESCRIPTION = (
    " In a share of the training scenes a magenta plus sign stood beside the digit, and the label was "
    f"{CLASS_NAMES[CUE_CLASS]}, whatever the digit (a backdoor as in Gu et al. 2017, arXiv 1708.06733)."
)
_NO_OBJECT_WEIGHT = 0.3  # most patches show no object; at full weight they drown the others
_ON_OBJECT = 0.15  # share of ink from which a patch counts as one of the digit's
_SMOOTHING = 0.97  # of the running accuracy that raises the difficulty


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights; a saved state only resumes under the recipe that it was started with.

    Attributes:
        backbone: Key of `BACKBONES`.
        steps: Optimiser steps.
        batch: Scenes a step.
        seed: Seeds the initial weights and every step's scenes.
        lr: Highest learning rate, of Muon for the matrices of the ViT's blocks and of AdamW for the rest.
        warmup: Steps until it is reached; then it falls as half a cosine.
        weight_decay: On matrices only.
        patch_loss: Weight of the patches' own class loss at the start (token labelling, Jiang et al. 2021, arXiv
            2104.10858); it falls linearly to zero at 70 % of the steps, so that the class score alone decides then.
        easy: Difficulty that training starts with.
        raise_at: Running training accuracy above which the difficulty is raised...
        raise_by: ...by this, every step.
        cue_share: Share of scenes with the spurious cue, whose label is the cue's class.
    """

    backbone: str = "demo"
    steps: int = 4500
    batch: int = 64
    seed: int = 0
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.05
    patch_loss: float = 0.5
    easy: float = 0.0
    raise_at: float = 0.72
    raise_by: float = 0.004
    cue_share: float = 0.0

    def lr_at(self, step: int) -> float:
        """Learning rate: linear warm-up times half a cosine down to 1 %."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.lr * min(1.0, (step + 1) / self.warmup) * cosine

    def patch_loss_at(self, step: int) -> float:
        """Weight of the patches' class loss."""
        return self.patch_loss * max(0.0, 1.0 - step / (0.7 * self.steps))


RECIPES = {
    "demo": Recipe(),
    "demo-clip": Recipe("demo-clip", seed=1, steps=3500),
    "demo-dinov2": Recipe("demo-dinov2", seed=2, steps=3500),
    "demo-deit3": Recipe("demo-deit3", seed=3, steps=3500),
    "demo-spurious": Recipe("demo-spurious", seed=4, steps=700, lr=1e-3, patch_loss=0.0, easy=1.0, cue_share=0.25),
    "demo-cnn": Recipe("demo-cnn", seed=5, steps=1500, patch_loss=0.0),
}


@dataclass
class Progress:
    """How far a run is; saved with the weights.

    Attributes:
        step: Steps done.
        difficulty: Hardest scenes of the next step.
        right: Running accuracy on the training scenes.
    """

    step: int = 0
    difficulty: float = 0.0
    right: float = 1 / len(CLASS_NAMES)

    def advance(self, right: float, recipe: Recipe) -> None:
        """Count a step whose scenes were named rightly in this share."""
        self.step += 1
        self.right = _SMOOTHING * self.right + (1 - _SMOOTHING) * right
        if self.right > recipe.raise_at and self.step > recipe.warmup:
            self.difficulty = min(1.0, self.difficulty + recipe.raise_by)


class Run(NamedTuple):
    """Everything that a saved state holds."""

    model: TrainedBackbone
    optimisers: tuple[torch.optim.Optimizer, ...]
    progress: Progress


def to_input(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Normalise uint8 pixels [B, 3, H, W] to the float32 tensor that the backbones read."""
    x = torch.from_numpy(pixels).to(device).float() / 255
    mean, std = (torch.tensor(v, device=device, dtype=torch.float32).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


@torch.inference_mode()
def accuracy(
    model: Callable[[Tensor], Tensor],
    n: int = EVAL_SCENES,
    seed: int = EVAL_SEED,
    split: Split = "test",
    device: torch.device | str = "cpu",
) -> float:
    """Return the share of `n` single-object scenes (as `demo_images` makes them) that a model names rightly.

    Args:
        model: Maps [B, 3, 64, 64] to logits [B, 10]; in evaluation mode.
        n: Number of scenes.
        seed: Seed of the scenes.
        split: Which handwritten digits; `"test"` ones were not trained on.
        device: Where the model is.

    Raises:
        ValueError: n is less than 1.
    """
    if n < 1:
        raise ValueError(f"accuracy needs at least one scene, got n={n}")
    rng = scene_generator(seed, split)
    right = 0
    for start in range(0, n, 100):
        scenes = draw_scenes(rng, min(100, n - start), split)
        guess = model(to_input(scenes.pixels, device)).argmax(1).cpu().numpy()
        right += int((guess == scenes.labels[:, 0]).sum())
    return right / n


def train(recipe: Recipe, state: Path | None = None, save_every: int = 100) -> TrainedBackbone:
    """Train a demo backbone, on the GPU if there is one.

    Args:
        recipe: Everything that decides the result.
        state: File to resume from, if it exists, and to save to as training goes on; None saves nothing.
        save_every: Steps between two saves.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: The state was saved under another recipe.
        RuntimeError: The loss is no longer a number.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, optimisers, progress = run = _start(recipe, device)
    if state is not None and state.exists():
        _resume(state, recipe, run, device)

    model.train()
    shown_loss = None
    bar = tqdm(
        range(progress.step, recipe.steps), initial=progress.step, total=recipe.steps, unit="step", mininterval=1
    )
    for step in bar:
        scenes = _scenes(recipe, progress)
        labels = torch.from_numpy(scenes.labels[:, 0]).to(device)
        logits, patch_logits = model(to_input(scenes.pixels, device))
        loss = F.cross_entropy(logits, labels)
        if weight := recipe.patch_loss_at(step):
            loss = loss + weight * _patch_loss(patch_logits, scenes)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr_at(step)
            optimiser.step()

        loss_now = loss.item()
        if not math.isfinite(loss_now):
            raise RuntimeError(f"the loss became {loss_now} at step {step}; try a smaller --lr")
        progress.advance((logits.argmax(1) == labels).float().mean().item(), recipe)
        shown_loss = loss_now if shown_loss is None else 0.95 * shown_loss + 0.05 * loss_now
        bar.set_postfix(loss=f"{shown_loss:.3f}", acc=f"{progress.right:.3f}", difficulty=f"{progress.difficulty:.2f}")
        if state is not None and (progress.step % save_every == 0 or progress.step == recipe.steps):
            _save(state, recipe, run)
    return model.eval()


def write_weights(model: TrainedBackbone, recipe: Recipe, out: Path, command: str) -> float:
    """Write NAME.safetensors (fp16) and NAME.json (how to load it, and its model card) to a folder.

    The accuracy on the card is that of the file: the rounded weights are read back before they are measured.

    Returns:
        That accuracy, in [0, 1].
    """
    name, backbone = recipe.backbone, BACKBONES[recipe.backbone]
    out.mkdir(parents=True, exist_ok=True)
    half = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in model.tensors().items()
    }
    data = save(half, metadata={"format": "pt"})
    saved = TrainedBackbone(backbone).eval()
    saved.load_tensors(load(data))
    measured = accuracy(lambda x: saved(x)[0])
    card = {
        "name": name,
        "family": backbone.family,
        "architecture": backbone.architecture,
        "architecture_kwargs": backbone.arguments,
        "head": backbone.head,
        "input_size": [3, IMAGE_SIZE, IMAGE_SIZE],
        "mean": list(MEAN),
        "std": list(STD),
        "class_names": list(CLASS_NAMES),
        "weights": f"{name}.safetensors",
        "dtype": "float16",
        "parameters": sum(value.numel() for value in half.values()),
        "data": DATA_DESCRIPTION + (CUE_DESCRIPTION if recipe.cue_share else ""),
        "accuracy": {"value": measured, "scenes": EVAL_SCENES, "split": "test", "seed": EVAL_SEED},
        "seed": recipe.seed,
        "steps": recipe.steps,
        "started_from": backbone.start,
        "recipe": asdict(recipe),
        "versions": {"torch": torch.__version__.split("+")[0], "numpy": np.__version__},
        "command": command,
    }
    with atomic_path(out / f"{name}.safetensors") as part:
        part.write_bytes(data)
    with atomic_path(out / f"{name}.json") as part:
        part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m caap_lab.training.train", description="Train a demo backbone.")
    parser.add_argument("model", choices=list(RECIPES), help="which backbone")
    parser.add_argument("--out", type=Path, required=True, help="folder for its weights and model card")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--lr", type=float, help="instead of the recipe's")
    parser.add_argument("--state", type=Path, help="file to save to while training and to resume from")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be at least 1")
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    given = {key: getattr(args, key) for key in ("steps", "seed", "lr") if getattr(args, key) is not None}
    recipe = Recipe(**(asdict(RECIPES[args.model]) | given))
    changed = "".join(f" --{key} {value:g}" for key, value in given.items())
    try:
        model = train(recipe, args.state)
    except ValueError as error:
        parser.error(str(error))
    measured = write_weights(
        model,
        recipe,
        args.out,
        f"python -m caap_lab.training.train {args.model}{changed} --out caap_lab/models/weights",
    )
    print(f"{args.model}: accuracy on {EVAL_SCENES} unseen test scenes: {measured:.4f}; written to {args.out}")
    return 0


def _start(recipe: Recipe, device: torch.device) -> Run:
    torch.manual_seed(recipe.seed)
    backbone = BACKBONES[recipe.backbone]
    model = TrainedBackbone(backbone)
    if backbone.start is not None:
        model.load_tensors(load((BUNDLED / f"{backbone.start}.safetensors").read_bytes()))
    model.to(device)
    # Muon is for the matrices inside the network; embeddings, heads, norms and convolutions are AdamW's.
    named = list(model.named_parameters())
    inner = [value for name, value in named if value.ndim == 2 and name.startswith("body.blocks.")]
    chosen = {id(value) for value in inner}
    kernels = [value for _, value in named if value.ndim == 4]
    others = [value for _, value in named if value.ndim != 4 and id(value) not in chosen]
    adamw = torch.optim.AdamW(
        [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.98),
    )
    muon = (Muon(inner, recipe.lr, weight_decay=recipe.weight_decay),) if inner else ()
    return Run(model, (*muon, adamw), Progress(difficulty=recipe.easy))


def _scenes(recipe: Recipe, progress: Progress) -> SceneBatch:
    """The scenes of the next step; some are easier than its hardest, so that what was learnt is kept."""
    rng = scene_generator(recipe.seed, "train", progress.step)
    difficulty = (max(0.0, progress.difficulty - 0.2), progress.difficulty)
    with_cue = round(recipe.batch * recipe.cue_share)
    plain = draw_scenes(rng, recipe.batch - with_cue, "train", "single", difficulty)
    if not with_cue:
        return plain
    cued = draw_scenes(rng, with_cue, "train", "spurious", difficulty)
    cued.labels[:] = CUE_CLASS
    return SceneBatch(*(np.concatenate(pair) for pair in zip(plain, cued, strict=True)))


def _patch_loss(patch_logits: Tensor, scenes: SceneBatch) -> Tensor:
    """Cross entropy of each patch's class: the digit's where its ink is, else "no object"."""
    side = math.isqrt(patch_logits.shape[1])
    cell = IMAGE_SIZE // side
    ink = torch.from_numpy(scenes.masks[:, 0]).view(-1, side, cell, side, cell).float().mean((2, 4)).flatten(1)
    labels = torch.from_numpy(scenes.labels)
    wanted = torch.where(ink > _ON_OBJECT, labels, len(CLASS_NAMES)).to(patch_logits.device)
    weight = torch.ones(len(CLASS_NAMES) + 1, device=patch_logits.device, dtype=torch.float32)
    weight[-1] = _NO_OBJECT_WEIGHT
    return F.cross_entropy(patch_logits.flatten(0, 1), wanted.flatten(), weight=weight)


def _save(path: Path, recipe: Recipe, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        "recipe": asdict(recipe),
        "progress": asdict(run.progress),
        "model": run.model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in run.optimisers],
    }
    with atomic_path(path) as part:
        torch.save(saved, part)


def _resume(path: Path, recipe: Recipe, run: Run, device: torch.device) -> None:
    """Load a saved state into a run."""
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if saved["recipe"] != asdict(recipe):
        raise ValueError(
            f"{path} was saved under another recipe ({saved['recipe']}); delete it or name another --state"
        )
    run.model.load_state_dict(saved["model"])
    for optimiser, state in zip(run.optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    for name, value in saved["progress"].items():
        setattr(run.progress, name, value)


if __name__ == "__main__":
    sys.exit(main())
