"""Recipes of the bundled backbones, and the curriculum: scenes become harder as accuracy rises."""

import math
from dataclasses import dataclass

from caap_lab.data.scenes import CLASS_NAMES

_SMOOTHING = 0.97  # of the running accuracy that raises the difficulty


@dataclass(frozen=True)
class Recipe:
    """Settings that determine the trained weights; a saved state only resumes with the recipe of its start.

    Attributes:
        backbone: Key of `BACKBONES`.
        steps: Optimiser steps.
        batch: Scenes per step.
        seed: Seed of the initial weights and of every step's scenes.
        lr: Maximum learning rate, of Muon for the matrices of the ViT's blocks and of AdamW for the rest.
        warmup: Steps until the maximum is reached; then it falls as half a cosine.
        weight_decay: For matrices only.
        patch_loss: Weight of the class loss of patches at the start (token labelling, Jiang et al. 2021, arXiv
            2104.10858); it falls linearly to zero at 70 % of the steps, so that only the class score counts from there
            on.
        easy: Difficulty that training starts with.
        raise_at: Running training accuracy above which the difficulty is raised...
        raise_by: ...by this, every step.
        cue_share: Fraction of scenes with the spurious cue, whose label is the cue's class.
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
    """The progress of a run; saved with the weights.

    Attributes:
        step: Steps done.
        difficulty: Hardest scenes of the next step.
        right: Running accuracy on the training scenes.
    """

    step: int = 0
    difficulty: float = 0.0
    right: float = 1 / len(CLASS_NAMES)

    def advance(self, right: float, recipe: Recipe) -> None:
        """Count a step in which this fraction of scenes was classified correctly."""
        self.step += 1
        self.right = _SMOOTHING * self.right + (1 - _SMOOTHING) * right
        if self.right > recipe.raise_at and self.step > recipe.warmup:
            self.difficulty = min(1.0, self.difficulty + recipe.raise_by)
