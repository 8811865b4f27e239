"""Train the bundled demo backbone: ``python -m caap_lab.data.train demo --out caap_lab/weights``.

One step takes about a second on one core. With ``--state FILE`` the run can be killed and started again:
the scenes of a step depend only on the seed and the step's number, so the resumed run sees what the whole run
would have seen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from caap_lab.data.scenes import CLASS_NAMES, IMAGE_SIZE, Split, scene_generator, single_scenes

ARCHITECTURE: dict[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": 8,
    "embed_dim": 96,
    "depth": 8,
    "num_heads": 3,
    "num_classes": len(CLASS_NAMES),
    "class_token": True,
    "global_pool": "token",
}
MEAN = STD = (0.5, 0.5, 0.5)
EVAL_SCENES, EVAL_SEED = 2000, 20_000
DATA_DESCRIPTION = (
    "Generated scenes, 64 x 64 RGB: one handwritten digit of scikit-learn's load_digits (UCI optical "
    "recognition of handwritten digits, CC BY 4.0) enlarged to 20 to 36 pixels, lighter or darker than a "
    "textured ground, with two or three pieces of other digits. Trained on four fifths of the digits, from "
    "large and plain to small and cluttered scenes; tested on the other fifth."
)


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights; a saved state only resumes under the recipe that it was started with.

    Attributes:
        steps: Optimiser steps of the curriculum.
        polish: Further steps on the hardest scenes, with a second cosine that starts at half the highest rate. A run
            that was saved before them may still get them.
        batch: Scenes a step.
        seed: Seeds the initial weights and every step's scenes.
        lr: Highest learning rate, reached after the warm-up.
        warmup: Steps until then.
        weight_decay: AdamW's, on matrices only.
        easy: Share of the steps at the start with the easiest scenes only.
        ramp: Share of the steps after which the difficulty has grown to 1.
    """

    steps: int = 2500
    polish: int = 620
    batch: int = 96
    seed: int = 0
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    easy: float = 0.08
    ramp: float = 0.65

    def lr_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to 1 % of the highest rate; then the second one."""
        if step >= self.steps:
            return 0.5 * self.lr * _half_cosine((step - self.steps) / self.polish)
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * _half_cosine((step - self.warmup) / max(1, self.steps - self.warmup))

    def difficulty_at(self, step: int) -> tuple[float, float]:
        """Range of difficulties at a step: some easier scenes stay in, so that what was learnt is kept."""
        if step >= self.steps:
            return 0.9, 1.0
        done = (step / self.steps - self.easy) / (self.ramp - self.easy)
        top = min(1.0, max(0.0, done))
        return max(0.0, top - 0.3), top


def _half_cosine(done: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def build_model(architecture: dict[str, Any] = ARCHITECTURE) -> nn.Module:
    """Return the demo backbone, untrained: timm's own VisionTransformer."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**architecture)


def to_input(pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalise uint8 pixels [B, 3, H, W] to the float32 tensor that the backbone reads."""
    x = torch.from_numpy(pixels).to(device).float() / 255
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


@torch.inference_mode()
def accuracy(model: nn.Module, n: int = EVAL_SCENES, seed: int = EVAL_SEED, split: Split = "test") -> float:
    """Return the share of ``n`` scenes (as ``demo_images`` makes them) that the model names rightly.

    Args:
        model: Maps [B, 3, 64, 64] to logits [B, 10]; it is left in evaluation mode.
        n: Number of scenes.
        seed: Seed of the scenes.
        split: Which handwritten digits; ``"test"`` ones were not trained on.

    Raises:
        ValueError: If n is less than 1.
    """
    if n < 1:
        raise ValueError(f"accuracy needs at least one scene, got n={n}")
    model.eval()
    device = next(model.parameters()).device
    rng = scene_generator(seed, split)
    right = 0
    for start in range(0, n, 100):
        scenes = single_scenes(rng, min(100, n - start), split)
        guess = model(to_input(scenes.pixels, device)).argmax(1).cpu().numpy()
        right += int((guess == scenes.labels).sum())
    return right / n


def train(recipe: Recipe, state: Path | None = None, save_every: int = 100) -> nn.Module:
    """Train the demo backbone, on the GPU if there is one.

    Args:
        recipe: Everything that decides the result.
        state: File to resume from, if it exists, and to save to as training goes on; None saves nothing.
        save_every: Steps between two saves.

    Returns:
        The trained model.

    Raises:
        ValueError: If the state was saved under another recipe.
        RuntimeError: If the loss is no longer a number.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    model = build_model().to(device)
    optimiser = torch.optim.AdamW(_decay_groups(model, recipe.weight_decay), lr=recipe.lr, betas=(0.9, 0.98))
    first = _resume(state, recipe, model, optimiser, device)

    model.train()
    shown_loss = shown_right = None
    last = recipe.steps + recipe.polish
    bar = tqdm(range(first, last), initial=first, total=last, unit="step", mininterval=1)
    for step in bar:
        scenes = single_scenes(
            scene_generator(recipe.seed, "train", step), recipe.batch, "train", recipe.difficulty_at(step)
        )
        labels = torch.from_numpy(scenes.labels).to(device)
        logits = model(to_input(scenes.pixels, device))
        loss = F.cross_entropy(logits, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr_at(step)
        optimiser.step()

        loss_now, right_now = loss.item(), (logits.argmax(1) == labels).float().mean().item()
        if not math.isfinite(loss_now):
            raise RuntimeError(f"the loss became {loss_now} at step {step}; try a smaller --lr")
        shown_loss = loss_now if shown_loss is None else 0.95 * shown_loss + 0.05 * loss_now
        shown_right = right_now if shown_right is None else 0.95 * shown_right + 0.05 * right_now
        hardest = recipe.difficulty_at(step)[1]
        bar.set_postfix(loss=f"{shown_loss:.3f}", acc=f"{shown_right:.3f}", difficulty=f"{hardest:.2f}")
        if state is not None and ((step + 1) % save_every == 0 or step + 1 in (recipe.steps, last)):
            _save_state(state, recipe, step + 1, model, optimiser)
    return model


def write_weights(model: nn.Module, recipe: Recipe, out: Path, command: str) -> float:
    """Write ``demo.safetensors`` (fp16) and ``demo.json`` (how to load it, and its model card) to a folder.

    The accuracy on the card is that of the file: the rounded weights are read back before they are measured.

    Returns:
        That accuracy, in [0, 1].
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "demo.safetensors"
    half = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    part = weights.with_suffix(".part")
    part.write_bytes(save(half, metadata={"format": "pt"}))  # save_file makes a file only its owner can read

    saved = build_model()
    saved.load_state_dict({name: value.float() for name, value in load(part.read_bytes()).items()})
    measured = accuracy(saved)
    card = {
        "name": "demo",
        "architecture": "timm.models.vision_transformer.VisionTransformer",
        "architecture_kwargs": ARCHITECTURE,
        "input_size": [3, IMAGE_SIZE, IMAGE_SIZE],
        "mean": list(MEAN),
        "std": list(STD),
        "class_names": list(CLASS_NAMES),
        "weights": weights.name,
        "dtype": "float16",
        "parameters": sum(value.numel() for value in half.values()),
        "data": DATA_DESCRIPTION,
        "accuracy": {"value": measured, "scenes": EVAL_SCENES, "split": "test", "seed": EVAL_SEED},
        "seed": recipe.seed,
        "steps": recipe.steps + recipe.polish,
        "recipe": asdict(recipe),
        "versions": {"torch": torch.__version__.split("+")[0], "numpy": np.__version__},
        "command": command,
    }
    part.replace(weights)
    card_part = out / "demo.json.part"
    card_part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    card_part.replace(out / "demo.json")
    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    default = Recipe()
    parser = argparse.ArgumentParser("python -m caap_lab.data.train", description="Train a demo backbone.")
    parser.add_argument("model", choices=["demo"], help="which backbone")
    parser.add_argument("--out", type=Path, required=True, help="folder for demo.safetensors and demo.json")
    parser.add_argument("--steps", type=int, default=default.steps, help="default %(default)s")
    parser.add_argument("--polish", type=int, default=default.polish, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=default.seed, help="default %(default)s")
    parser.add_argument("--lr", type=float, default=default.lr, help="default %(default)s")
    parser.add_argument("--state", type=Path, help="file to save to while training and to resume from")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.polish < 0:
        parser.error("--steps must be at least 1, and --polish at least 0")
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    recipe = Recipe(steps=args.steps, polish=args.polish, seed=args.seed, lr=args.lr)
    command = (
        f"python -m caap_lab.data.train demo --steps {recipe.steps} --polish {recipe.polish} "
        f"--seed {recipe.seed} --lr {recipe.lr:g} --out caap_lab/weights"
    )
    try:
        model = train(recipe, args.state)
    except ValueError as error:
        parser.error(str(error))
    measured = write_weights(model, recipe, args.out, command)
    print(f"accuracy on {EVAL_SCENES} unseen test scenes: {measured:.4f}; weights and card are in {args.out}")
    return 0


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for the matrices; none for biases, norms, the class token and the position embedding."""
    embeddings = ("cls_token", "pos_embed")
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and name not in embeddings]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _save_state(path: Path, recipe: Recipe, step: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(
        {
            "recipe": asdict(recipe),
            "step": step,
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        part,
    )
    part.replace(path)


def _resume(
    path: Path | None,
    recipe: Recipe,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Load a saved state, if there is one, and return the step to go on with."""
    if path is None or not path.exists():
        return 0
    saved = torch.load(path, map_location=device, weights_only=True)
    old = Recipe(**saved["recipe"])
    if saved["step"] <= old.steps:
        old = replace(old, polish=recipe.polish)  # not begun yet, so that its length still is free to choose
    if old != recipe:
        raise ValueError(
            f"{path} was saved under another recipe ({saved['recipe']}); delete it or name another --state"
        )
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return int(saved["step"])


if __name__ == "__main__":
    sys.exit(main())
