"""Train a bundled demo backbone: `python -m caap_lab.training.train demo --out caap_lab/models/weights`.

A ViT takes about half a second per step on one core. With `--state FILE` the run can be killed and started again: the
scenes of a step depend only on the seed, the step's number and the difficulty, which is saved too, so a resumed run
continues as an uninterrupted one.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from caap_lab.data.drawing import IMAGE_SIZE
from caap_lab.data.scenes import CLASS_NAMES, CUE_CLASS, SceneBatch, draw_scenes, scene_generator
from caap_lab.files import atomic_path
from caap_lab.models.bundled import BACKBONES, TrainedBackbone
from caap_lab.training.muon import Muon
from caap_lab.training.recipes import RECIPES, Progress, Recipe
from caap_lab.training.weights import EVAL_SCENES, to_input, write_weights

BUNDLED = Path(__file__).parents[1] / "models" / "weights"
_NO_OBJECT_WEIGHT = 0.3  # most patches show no object; at full weight they dominate
_ON_OBJECT = 0.15  # minimum fraction of ink for a patch to count as the digit's


class TrainingRun(NamedTuple):
    """The content of a saved state."""

    model: TrainedBackbone
    optimisers: tuple[torch.optim.Optimizer, ...]
    progress: Progress


def train(recipe: Recipe, state: Path | None = None, save_every: int = 100) -> TrainedBackbone:
    """Train a demo backbone, on the GPU if there is one.

    Args:
        recipe: All settings that determine the result.
        state: File to resume from, if it exists, and to save to during training; None saves nothing.
        save_every: Steps between two saves.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: The state was saved with another recipe.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m caap_lab.training.train", description="Train a demo backbone.")
    parser.add_argument("model", choices=list(RECIPES), help="the backbone")
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


def _start(recipe: Recipe, device: torch.device) -> TrainingRun:
    torch.manual_seed(recipe.seed)
    backbone = BACKBONES[recipe.backbone]
    model = TrainedBackbone(backbone)
    if backbone.start is not None:
        model.load_tensors(load((BUNDLED / f"{backbone.start}.safetensors").read_bytes()))
    model.to(device)
    # Muon is for the matrices inside the network; embeddings, heads, norms and convolutions use AdamW.
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
    return TrainingRun(model, (*muon, adamw), Progress(difficulty=recipe.easy))


def _scenes(recipe: Recipe, progress: Progress) -> SceneBatch:
    """The scenes of the next step; some are easier than the hardest, so that the model does not forget."""
    rng = scene_generator(recipe.seed, "train", progress.step)
    difficulty = (max(0.0, progress.difficulty - 0.2), progress.difficulty)
    with_cue = round(recipe.batch * recipe.cue_share)
    plain = draw_scenes(rng, recipe.batch - with_cue, "train", "single", difficulty)
    if not with_cue:
        return plain
    cued = draw_scenes(rng, with_cue, "train", "spurious", difficulty)
    cued.labels[:] = CUE_CLASS
    return SceneBatch(*(np.concatenate(pair) for pair in zip(plain, cued, strict=True)))


def _patch_loss(patch_logits: Float[Tensor, "batch patch class"], scenes: SceneBatch) -> Float[Tensor, ""]:
    """Cross entropy of each patch's class: the digit's if the patch contains its ink, otherwise "no object"."""
    side = math.isqrt(patch_logits.shape[1])
    cell = IMAGE_SIZE // side
    ink = torch.from_numpy(scenes.masks[:, 0]).view(-1, side, cell, side, cell).float().mean((2, 4)).flatten(1)
    labels = torch.from_numpy(scenes.labels)
    expected = torch.where(ink > _ON_OBJECT, labels, len(CLASS_NAMES)).to(patch_logits.device)
    weight = torch.ones(len(CLASS_NAMES) + 1, device=patch_logits.device, dtype=torch.float32)
    weight[-1] = _NO_OBJECT_WEIGHT
    return F.cross_entropy(patch_logits.flatten(0, 1), expected.flatten(), weight=weight)


def _save(path: Path, recipe: Recipe, run: TrainingRun) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        "recipe": asdict(recipe),
        "progress": asdict(run.progress),
        "model": run.model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in run.optimisers],
    }
    with atomic_path(path) as part:
        torch.save(saved, part)


def _resume(path: Path, recipe: Recipe, run: TrainingRun, device: torch.device) -> None:
    """Load a saved state into a run."""
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if saved["recipe"] != asdict(recipe):
        raise ValueError(f"{path} was saved with another recipe ({saved['recipe']}); delete it or use another --state")
    run.model.load_state_dict(saved["model"])
    for optimiser, state in zip(run.optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    for name, value in saved["progress"].items():
        setattr(run.progress, name, value)


if __name__ == "__main__":
    sys.exit(main())
