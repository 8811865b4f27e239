"""How well the bundled backbones classify generated scenes, and whether CAAP finds the evidence that they use.

    python -m experiments.demo_world --scenes 300 --out docs/tables/demo_world.md

Prints Markdown. A map hits a mask when its highest patch holds at least one of the mask's pixels; the chance level is
the fraction of such patches. Errors are standard errors over scenes (ddof = 0).
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

import caap_lab as cl
from caap_lab.data.scenes import CUE_CLASS, Kind, Scene
from caap_lab.models.base import HookedModel
from caap_lab.models.load import bundled_models
from caap_lab.models.neighbour_tables import neighbourhood_table
from caap_lab.models.tokens import mask_share
from caap_lab.training.weights import EVAL_SCENES, EVAL_SEED, accuracy

BLANKS = ("white", "black", "mean")
SEED = 1


def hit(m: cl.AttributionMap, mask: np.ndarray, model: HookedModel) -> bool:
    """True if the highest patch (the patch of the highest score, in a finer map) holds a pixel of the mask."""
    cell = [place * size // scored for place, size, scored in zip(m.rank()[0], model.grid, m.grid, strict=True)]
    return bool(_holds(mask, model)[*cell])


def chance(mask: np.ndarray, model: HookedModel) -> float:
    """Fraction of patches that hold a pixel of the mask."""
    return float(_holds(mask, model).mean())


def _holds(mask: np.ndarray, model: HookedModel) -> np.ndarray:
    return mask_share(mask, model).reshape(model.grid) > 0


def answers(model: HookedModel, scenes: Sequence[Scene]) -> list[int]:
    """The model's class for each scene."""
    with torch.no_grad():
        return model([scene.image for scene in scenes]).argmax(1).tolist()


def maps(
    model: HookedModel, scenes: Sequence[Scene], targets: Sequence[int], blank: str, neighbourhood: str = "box1"
) -> list[cl.AttributionMap]:
    """CAAP with all other settings at their defaults."""
    images = [scene.image for scene in scenes]
    found = cl.caap(model, images, targets, blank=blank, neighbourhood=neighbourhood, batch_size=16, progress=False)
    assert isinstance(found, list)
    return found


def pointing(model: HookedModel, kind: Kind, n: int, blank: str) -> tuple[list[float], list[float]]:
    """Hits on the object in correctly classified scenes, and the chance level of each."""
    scenes = cl.demo_images(kind, n, SEED)
    right = [scene for scene, guess in zip(scenes, answers(model, scenes), strict=True) if guess == scene.label]
    found = maps(model, right, [scene.label for scene in right], blank)
    hits = [float(hit(m, s.masks[s.label], model)) for m, s in zip(found, right, strict=True)]
    return hits, [chance(scene.masks[scene.label], model) for scene in right]


def discrimination(model: HookedModel, n: int, blank: str) -> tuple[list[float], list[float]]:
    """For each class of each two-object scene: hit on that class's object, and on the other's."""
    scenes = cl.demo_images("two", n, SEED)
    asked, other = [], []
    for m, scene in zip(maps(model, scenes, [scene.label for scene in scenes], blank), scenes, strict=True):
        for a, b in (scene.labels, scene.labels[::-1]):
            asked.append(float(hit(m.for_target(a), scene.masks[a], model)))
            other.append(float(hit(m.for_target(a), scene.masks[b], model)))
    return asked, other


def cue_found(model: HookedModel, n: int, blank: str, neighbourhood: str) -> tuple[float, list[float], list[float]]:
    """Fraction of scenes in which the cue decides the answer; hits on the cue in these, and their chance levels.

    A hit is a highest patch whose neighbourhood holds some of the cue: all such patches insert it, so that they share
    the top of the map.
    """
    scenes = cl.demo_images("spurious", n, SEED)
    led = [scene for scene, guess in zip(scenes, answers(model, scenes), strict=True) if guess == CUE_CLASS]
    if not led:
        return 0.0, [], []
    table = neighbourhood_table(model.grid, neighbourhood)
    hits, by_chance = [], []
    for m, scene in zip(maps(model, led, [CUE_CLASS] * len(led), blank, neighbourhood), led, strict=True):
        assert scene.cue is not None
        holds = np.append(_holds(scene.cue, model).ravel(), False)  # the last entry is for neighbours that do not exist
        inserted = holds[table.numpy()].any(axis=1).reshape(model.grid)
        hits.append(float(inserted[m.rank()[0]]))
        by_chance.append(float(inserted.mean()))
    return len(led) / n, hits, by_chance


def percent(values: Sequence[float]) -> str:
    """Mean and standard error, in percent."""
    if not values:
        return "none"
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values) / len(values) ** 0.5:.1f}"


def table(n: int) -> str:
    """All measurements as Markdown."""
    lines = [
        f"{n} test scenes per kind, seed {SEED}; CAAP with cutoff 2/3, box1, clamped, logit; in percent.",
        f"Accuracy: {EVAL_SCENES} single scenes of unseen digits, seed {EVAL_SEED}, fp32 on the CPU.",
        f"torch {torch.__version__.split('+')[0]}, caap_lab {cl.__version__}.",
        "",
        "| model | accuracy | blank | single | chance | bright-ink | two: asked | two: other |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in bundled_models():
        model = cl.load_model(name)
        right = f"{100 * accuracy(model):.1f}"
        if not isinstance(model, cl.HookedViT):
            lines.append(f"| {name} | {right} | | | | | | |")
            continue
        for blank in BLANKS:
            single, by_chance = pointing(model, "single", n, blank)
            bright, _ = pointing(model, "bright-ink", n, blank)
            asked, other = discrimination(model, n, blank)
            lines.append(
                f"| {name} | {right} | {blank} | {percent(single)} | {100 * np.mean(by_chance):.1f} | "
                f"{percent(bright)} | {percent(asked)} | {percent(other)} |"
            )
    lines += [
        "",
        "| model | neighbourhood | blank | the cue decides | the highest patch inserts the cue | chance |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("demo-spurious", "demo"):
        model = cl.load_model(name)
        for neighbourhood, blank in product(("none", "box1"), BLANKS):
            share, hits, by_chance = cue_found(model, n, blank, neighbourhood)
            expected = f"{100 * np.mean(by_chance):.1f}" if by_chance else ""
            cells = (name, neighbourhood, blank, f"{100 * share:.1f}", percent(hits), expected)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.demo_world", description=__doc__)
    parser.add_argument("--scenes", type=int, default=300, help="scenes per kind; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    found = table(args.scenes)
    print(found)
    if args.out is not None:
        args.out.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
