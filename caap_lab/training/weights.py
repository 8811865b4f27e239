"""The files of a trained backbone: its weights in half precision, and its model card with the measured accuracy."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load, save
from torch import Tensor

from caap_lab.data.drawing import IMAGE_SIZE
from caap_lab.data.scenes import CLASS_NAMES, CUE_CLASS, Split, draw_scenes, scene_generator
from caap_lab.files import atomic_path
from caap_lab.models.bundled import BACKBONES, MEAN, STD, TrainedBackbone
from caap_lab.training.recipes import Recipe

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


def to_input(
    pixels: UInt8[np.ndarray, "batch 3 height width"], device: torch.device | str = "cpu"
) -> Float[Tensor, "batch 3 height width"]:
    """Normalise 8-bit pixels to the float32 tensor that the backbones read."""
    x = torch.from_numpy(pixels).to(device).float() / 255
    mean, std = (torch.tensor(v, device=device, dtype=torch.float32).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


@torch.inference_mode()
def accuracy(
    model: Callable[[Float[Tensor, "batch 3 64 64"]], Float[Tensor, "batch 10"]],
    n: int = EVAL_SCENES,
    seed: int = EVAL_SEED,
    split: Split = "test",
    device: torch.device | str = "cpu",
) -> float:
    """Return the fraction of `n` single-object scenes (as in `demo_images`) that a model classifies correctly.

    Args:
        model: Maps images to logits; in evaluation mode.
        n: Number of scenes.
        seed: Seed of the scenes.
        split: Which handwritten digits; `"test"` ones were not used for training.
        device: Device of the model.

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


def write_weights(model: TrainedBackbone, recipe: Recipe, out: Path, command: str) -> float:
    """Write NAME.safetensors (fp16) and NAME.json (how to load it, and its model card) to a folder.

    The accuracy on the card is that of the file: the rounded weights are read again before accuracy is measured.

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
