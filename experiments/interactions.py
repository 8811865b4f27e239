"""How much of the joint effect of patches do pairs explain? On a ViT so small that every pair of patches can be run.

    python -m experiments.interactions --cifar PATH/model.safetensors --photos folder:PATH \
        --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] --out docs/tables/interactions.md

The small model is a CIFAR-10 ViT (4 blocks, 64 patches of 4 pixels), on photos shrunk to 32 pixels; all 2016 pairs of
patches are run (neighbourhood "none", white blank, clamped context), for its own prediction. Three questions:

- subsets: random sets of patches are inserted together. How much of the variance of their joint effects is explained
  by the sum of single effects, and by that sum with all interactions of pairs in the set? And by the best coefficients
  for patches, and for patches and pairs, fitted to 3000 other sets of 16 patches (ridge regression)?
- Shapley: is the interaction in an otherwise blank image like that among other patches? For random pairs,
  it is compared with the Shapley interaction index, sampled over random sets of others (Grabisch & Roubens 1999).
- larger models: the ten highest patches of CAAP's map, together and in pairs.

Errors are standard errors over photos (ddof = 0).
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import nn
from tqdm import tqdm

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from benchmarks.machine import describe
from caap_lab.engine.sets import PatchSets, SetRuns
from caap_lab.engine.settings import CaapSettings
from caap_lab.models.base import HookedModel
from caap_lab.variant import parse_variant
from experiments.photos import one

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZES = (2, 3, 4, 8, 16)
"""Sizes of random subsets."""
FITTED = 16
"""Size of the subsets to which coefficients are fitted as well."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.interactions", description=__doc__)
    parser.add_argument("--cifar", type=Path, help="weights of the CIFAR-10 ViT; without them its tables are omitted")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens")
    parser.add_argument("--models", nargs="*", default=[], metavar="LABEL=NAME:key=value")
    parser.add_argument(
        "--count", type=int, default=24, help="number of photos, evenly spaced in the folder; default %(default)s"
    )
    parser.add_argument("--sets", type=int, default=200, help="random subsets of each size; default %(default)s")
    parser.add_argument("--pairs", type=int, default=40, help="pairs with a Shapley index; default %(default)s")
    parser.add_argument("--coalitions", type=int, default=50, help="sets of others per pair; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    photos = [sample.image for sample in cl.open_images(args.photos)]
    photos = photos[:: max(1, len(photos) // args.count)][: args.count]
    text = f"{len(photos)} photos, means ± standard errors over photos. {describe()}.\n\n"
    if args.cifar is not None:
        text += of_all_pairs(cifar_model(args.cifar), photos, args.sets, args.pairs, args.coalitions)
    for spec in map(parse_variant, args.models):
        text += of_top_patches(spec.label, cl.load_model(spec.name, **spec.options), photos)
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def cifar_model(weights: Path) -> cl.HookedViT:
    """The CIFAR-10 ViT."""
    vit = VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=64,
        depth=4,
        num_heads=8,
        mlp_ratio=2,
        num_classes=10,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        act_layer=partial(nn.GELU, approximate="tanh"),
    )
    vit.load_state_dict(load_file(weights))
    seen = cl.Preprocessing(image_size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    return cl.HookedViT(vit, preprocessing=seen, class_names=CLASSES, name="CIFAR-10 ViT")


def of_all_pairs(model: cl.HookedViT, photos: list[Any], n_sets: int, n_pairs: int, n_coalitions: int) -> str:
    """Tables of subsets and of the Shapley interaction index."""
    settings = CaapSettings(neighbourhood="none")
    explained: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    alike, same_sign, whole, fitted = [], [], [], []
    generator = np.random.default_rng(0)
    for photo in tqdm(photos):
        found = cl.caap_interactions(model, photo, patches="all", neighbourhood="none", progress=False)
        target = model.target(found.data.attrs["target"])
        runs = PatchSets.of(model, settings).of_image(model.preprocess(photo))
        single, pairs = found.data["single"].values[0], found.per_image[0]
        whole.append(found.shares().iloc[0])
        for size in SIZES:
            chosen = np.stack([generator.permutation(64) < size for _ in range(n_sets)])
            joint = effects(runs, chosen, target)
            first = chosen @ single
            second = first + np.einsum("si,ij,sj->s", chosen, pairs, chosen) / 2
            explained[size].append((r_squared(joint, first), r_squared(joint, second)))
            if size == FITTED:
                known = np.stack([generator.permutation(64) < size for _ in range(3000)])
                fitted.append(fits(known, effects(runs, known, target), chosen, joint))
        places = generator.choice(64 * 63 // 2, n_pairs, replace=False)
        rows, cols = (side[places] for side in np.triu_indices(64, 1))
        index = shapley(runs, rows, cols, n_coalitions, target, generator)
        alike.append(float(spearmanr(pairs[rows, cols], index).statistic))
        same_sign.append(float((np.sign(pairs[rows, cols]) == np.sign(index)).mean()))
    lines = [
        f"**{model.model_name}**, all {64 * 63 // 2} pairs, neighbourhood none: variance of the joint effects of "
        f"{n_sets} random subsets that is explained (R²; below 0: worse than their mean)",
        "",
        "| patches | single effects | and pairs |",
        "|---|---|---|",
    ]
    for size, values in explained.items():
        first, second = zip(*values, strict=True)
        lines.append(f"| {size} | {spread(first)} | {spread(second)} |")
    first, second = zip(*fitted, strict=True)
    lines.append(f"| {FITTED}, coefficients fitted to other sets | {spread(first)} | {spread(second)} |")
    lines += ["", *share_table(pd.DataFrame(whole), "all 64 patches")]
    lines += [
        "",
        f"Interaction in the blank against the Shapley interaction index ({n_pairs} pairs per photo, {n_coalitions} "
        f"sets of others each): rank correlation {spread(alike)}, same sign {spread(same_sign)}.",
        "",
        "",
    ]
    return "\n".join(lines)


def of_top_patches(label: str, model: HookedModel, photos: list[Any]) -> str:
    """Table of the ten highest patches of a larger model."""
    lines = [f"**{label}**, the ten highest patches of CAAP's map", ""]
    for kind in ("none", "box1"):
        rows = []
        for photo in tqdm(photos):
            found = cl.caap_interactions(model, photo, neighbourhood=kind, progress=False)
            shares = found.shares().iloc[0]
            beyond = found.data["beyond_overlap"].values[0].sum() / 2
            rows.append({**shares, "beyond": beyond})
        lines += share_table(pd.DataFrame(rows), f"neighbourhood {kind}", beyond=True)
        lines.append("")
    checks = [cl.interaction_check(model, one(cl.caap(model, photo))) for photo in photos]
    joint, singles, distance = (np.array([getattr(c, n)[0] for c in checks]) for n in ("joint", "singles", "distance"))
    lines += [
        f"`interaction_check` of CAAP's default map, patches that share nothing: together {spread(joint)}, sum of "
        f"single effects {spread(singles)}; the runs are {spread(distance)} apart.",
        "",
        "",
    ]
    return "\n".join(lines)


def share_table(shares: pd.DataFrame, what: str, beyond: bool = False) -> list[str]:
    """Effects on the logit: of all patches together, and the parts of single effects and pairs."""
    columns = {"joint": "together", "singles": "single effects", "pairs": "pairs", "rest": "three and more"}
    columns |= {"pair_share": "pairs' part of the patches' values"}
    columns |= {"beyond": "pairs, beyond overlap"} if beyond else {}
    return [
        f"| logit, {what} | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
        f"| mean | {' | '.join(spread(shares[name].to_numpy(float)) for name in columns)} |",
    ]


def effects(runs: SetRuns, chosen: Bool[np.ndarray, "set patch"], target: int) -> Float[np.ndarray, " set"]:
    """Joint effect of sets of patches."""
    masks = torch.from_numpy(np.concatenate([np.zeros((1, chosen.shape[1]), dtype=bool), chosen]))
    values = runs.all_logits(masks)[:, target].double().numpy()
    return values[1:] - values[0]


def shapley(
    runs: SetRuns, rows: np.ndarray, cols: np.ndarray, count: int, target: int, generator: np.random.Generator
) -> Float[np.ndarray, " pair"]:
    """Sampled Shapley interaction indices: second differences over others that come before both in a random order."""
    sets = []
    for row, col in zip(rows, cols, strict=True):
        for _ in range(count):
            others = generator.permutation([patch for patch in range(64) if patch not in (row, col)])
            before = np.zeros(64, dtype=bool)
            before[others[: generator.integers(0, len(others) + 1)]] = True
            for own in ((), (row,), (col,), (row, col)):
                company = before.copy()
                company[list(own)] = True
                sets.append(company)
    values = effects(runs, np.stack(sets), target).reshape(len(rows), count, 4)
    return (values[..., 3] - values[..., 2] - values[..., 1] + values[..., 0]).mean(axis=1)


def fits(known: np.ndarray, values: np.ndarray, chosen: np.ndarray, joint: np.ndarray) -> tuple[float, float]:
    """Explained variance of new sets by coefficients, for patches and for patches and pairs, fitted to known sets."""
    found = []
    rows, cols = np.triu_indices(64, 1)
    for with_pairs in (False, True):

        def features(sets: np.ndarray, with_pairs: bool = with_pairs) -> np.ndarray:
            single = sets.astype(float)
            return np.hstack([single, single[:, rows] * single[:, cols]]) if with_pairs else single

        given = features(known)
        middle, mean = given.mean(axis=0), values.mean()
        given -= middle
        gram = given.T @ given + 10 * np.eye(given.shape[1])
        weights = np.linalg.solve(gram, given.T @ (values - mean))
        found.append(r_squared(joint, (features(chosen) - middle) @ weights + mean))
    return found[0], found[1]


def r_squared(true: np.ndarray, predicted: np.ndarray) -> float:
    """Explained variance, without any fit."""
    return float(1 - ((true - predicted) ** 2).mean() / true.var())


def spread(values: Any) -> str:
    """Mean and standard error."""
    numbers = np.asarray(values, dtype=float)
    return f"{numbers.mean():.2f} ± {numbers.std() / len(numbers) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
