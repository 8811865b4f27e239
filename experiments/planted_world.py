"""Scenes with planted evidence whose worth is known, and a small ViT that has learned to read them.

A scene has 6 x 6 patches of 4 pixels: grey noise, and symbols that each fill a patch. Nine symbols are evidence for
five classes:

- one: one symbol is worth 1;
- halves: two symbols are worth 1/2 each;
- unequal: two symbols, one worth 2/3 and the other 1/3;
- and: two symbols are worth 1 together, and nothing alone;
- or: two symbols are worth 1, together or alone.

Those are the logits that the model is trained for, times `SCALE`. In training any symbols stand anywhere, and any
part of the scene may be blank, so that to take a patch out of a scene, or to put it into a blank, is nothing new to
the model.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

GRID, SIDE = 6, 4
CLASSES = ("one", "halves", "unequal", "and", "or")
SYMBOLS: Mapping[str, tuple[int, ...]] = {
    "one": (0,),
    "halves": (1, 2),
    "unequal": (3, 4),
    "and": (5, 6),
    "or": (7, 8),
}
"""Of each class, by number; the first of "unequal" is the stronger one."""
SCALE = 6.0
BLANKS = {"white": 1.0, "black": 0.0, "grey": 0.5}
LEVELS = 0.5, 0.5
"""Mean and standard deviation of the model's preprocessing."""


def worth(present: Bool[np.ndarray, "scene symbol"]) -> Float[np.ndarray, "scene class"]:
    """Worth of the present symbols for each class, by construction."""
    p = present.astype(float)
    columns = [
        p[:, 0],
        (p[:, 1] + p[:, 2]) / 2,
        (2 * p[:, 3] + p[:, 4]) / 3,
        p[:, 5] * p[:, 6],
        np.maximum(p[:, 7], p[:, 8]),
    ]
    return np.stack(columns, axis=1)


def symbols() -> Float[np.ndarray, "symbol side side 3"]:
    """Nine patterns of pixels in strong colours."""
    return np.random.default_rng(5).choice([0.05, 0.95], size=(9, SIDE, SIDE, 3))


def scenes(
    where: Int[np.ndarray, "scene symbol"], generator: np.random.Generator
) -> Float[np.ndarray, "scene patch side side 3"]:
    """Scenes patch by patch.

    Args:
        where: The patch of each symbol; -1 where it is not there.
        generator: Draws the noise.
    """
    count = len(where)
    level = 0.5 + 0.12 * generator.normal(size=(count, GRID**2, 1, 1, 3))
    patches = level + 0.08 * generator.normal(size=(count, GRID**2, SIDE, SIDE, 3))
    scene, symbol = np.nonzero(where >= 0)
    noise = 0.03 * generator.normal(size=(len(scene), SIDE, SIDE, 3))
    patches[scene, where[scene, symbol]] = symbols()[symbol] + noise
    return patches.clip(0, 1)


def pixels(patches: Float[np.ndarray, "scene patch side side 3"]) -> Float[Tensor, "scene 3 height width"]:
    """As the model gets them."""
    rows = patches.reshape(-1, GRID, GRID, SIDE, SIDE, 3).transpose(0, 5, 1, 3, 2, 4)
    images = torch.from_numpy(rows.reshape(-1, 3, GRID * SIDE, GRID * SIDE)).float()
    return (images - LEVELS[0]) / LEVELS[1]


def training_scenes(count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images, and what is planted in them and not blank."""
    where = np.stack([generator.permutation(GRID**2)[:9] for _ in range(count)])
    where[generator.random(where.shape) < 0.5] = -1
    patches = scenes(where, generator)
    blank = generator.choice(list(BLANKS.values()), size=count)
    share = generator.choice([0.0, 1.0], size=count) * generator.random(count)
    hidden = generator.random((count, GRID**2)) < share[:, None]
    patches[hidden] = np.broadcast_to(blank[:, None, None, None, None], patches.shape)[hidden]
    seen = (where >= 0) & ~np.take_along_axis(hidden, where.clip(0), axis=1)
    return pixels(patches), torch.from_numpy(worth(seen)).float()


def make_vit() -> VisionTransformer:
    """Four blocks of width 32."""
    return VisionTransformer(
        img_size=GRID * SIDE, patch_size=SIDE, embed_dim=32, depth=4, num_heads=4, mlp_ratio=2, num_classes=len(CLASSES)
    )


def train(steps: int, seed: int = 0) -> VisionTransformer:
    """A ViT that says what scenes are worth, by squared errors."""
    torch.manual_seed(seed)
    vit, generator = make_vit(), np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(vit.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="train", mininterval=5)
    for _ in bar:
        images, wanted = training_scenes(64, generator)
        loss = F.mse_loss(vit(images) / SCALE, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(error=f"{loss.item() ** 0.5:.3f}")
    return vit.eval()


def planted_model(folder: Path, steps: int) -> cl.HookedViT:
    """The trained model, from the folder or trained now."""
    path = folder / f"planted-{steps}.safetensors"
    if not path.exists():
        vit = train(steps)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(vit.state_dict(), path)
    vit = make_vit()
    vit.load_state_dict(load_file(path))
    size, (mean, deviation) = (GRID * SIDE, GRID * SIDE), LEVELS
    seen = cl.Preprocessing(image_size=size, mean=(mean,) * 3, std=(deviation,) * 3)
    return cl.HookedViT(vit.eval(), preprocessing=seen, class_names=CLASSES, name="planted")


@torch.no_grad()
def errors_of_interventions(
    model: cl.HookedViT, where: Int[np.ndarray, "scene symbol"], kind: str, generator: np.random.Generator
) -> dict[str, float]:
    """How far the model is from the construction where planted patches are taken out of scenes, and put into blanks.

    Root mean square of logit / `SCALE` less what is there is worth, over all sets of a class's planted patches and all
    blanks: "removed" with the set blanked in the scene, "inserted" with the set alone in a blank.
    """
    planted = SYMBOLS[kind]
    patches = scenes(where, generator)
    found: dict[str, list[float]] = {"removed": [], "inserted": []}
    for blank in BLANKS.values():
        for chosen in subsets(planted):
            cells = where[:, list(chosen)]
            without, alone = patches.copy(), np.full_like(patches, blank)
            for scene, of_scene in enumerate(cells):
                without[scene, of_scene] = blank
                alone[scene, of_scene] = patches[scene, of_scene]
            for name, made, there in (
                ("removed", without, [s for s in planted if s not in chosen]),
                ("inserted", alone, chosen),
            ):
                present = np.zeros((1, 9), dtype=bool)
                present[0, list(there)] = True
                said = model(pixels(made))[:, CLASSES.index(kind)] / SCALE
                found[name] += (said - worth(present)[0, CLASSES.index(kind)]).tolist()
    return {name: float(np.square(values).mean() ** 0.5) for name, values in found.items()}


def subsets(items: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All sets of some symbols, the empty one too."""
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))
