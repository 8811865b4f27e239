"""Do maps depend on what a model has learned, and are they steady under noise: all methods, on demo and real weights.

    python -m experiments.sanity --scenes 8 2 --out docs/tables/sanity.md --figures docs/images \
        --models ViT-Ti/16=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] --photos masks:PATH --images 12

Without `--models` the table has only the bundled scenes. The same command resumes a stopped run, image by image. Each
image has its own seed for the shuffling and the noise, so that the errors of means include the effect of another draw.
"edges" is a control that ignores the model: the mean size of a patch's brightness gradient.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.metrics.method_runs import MethodRuns
from caap_lab.models.base import HookedModel
from caap_lab.plots.points import plot_points
from caap_lab.plots.sanity import plot_shuffled
from caap_lab.plots.style import new_figure, save_figure
from caap_lab.statistics import standard_error
from caap_lab.variant import Variant, parse_variant

E_CAAP = "E-CAAP=caap:attention=cached"
QUICK, SLOW = 5, 200
"""Largest number of passes per map for a method to run on photos, and to run on all scenes."""
TEST = 64
"""Number of photos at the end of the draw on which nothing is chosen."""
KEPT = 0.8
"""Mean rank correlation above which a map counts as unchanged."""
SAMPLES = 5
"""Number of noisy copies per image."""


def edges(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, "batch row col"]:
    """A control that ignores the model: how much brightness changes within a patch."""
    grey = images.mean(dim=1)
    across = torch.nn.functional.pad(grey.diff(dim=2).abs(), (0, 1))
    down = torch.nn.functional.pad(grey.diff(dim=1).abs(), (0, 0, 0, 1))
    return torch.nn.functional.adaptive_avg_pool2d(across + down, model.grid)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.sanity", description=__doc__)
    parser.add_argument("--model", default="demo", help="a bundled model; default %(default)s")
    parser.add_argument(
        "--scenes",
        type=int,
        nargs=2,
        default=[8, 2],
        metavar=("MOST", "SLOWEST"),
        help=f"bundled scenes, fewer for methods of more than {SLOW} passes; 0 skips the methods",
    )
    parser.add_argument("--models", nargs="+", default=[], metavar="LABEL=NAME:key=value", help="real weights")
    parser.add_argument("--photos", help="what cl.open_images opens")
    parser.add_argument("--images", type=int, default=12, help="photos; default %(default)s")
    parser.add_argument("--run", type=Path, default=Path("runs/sanity"), help="folder of the results")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figure into this folder")
    args = parser.parse_args()
    cl.register(
        "edges", edges, family="control", source="", class_specific=False, forwards=0, backwards=0, reads="pixels"
    )
    parts: list[tuple[str, pd.DataFrame, pd.DataFrame]] = []
    model = cl.load_model(args.model)
    scenes = [scene.image for scene in cl.demo_images("single", n=max(args.scenes), seed=0)]
    slow = [name for name in _names(model) if _passes(model, name) > SLOW]
    groups = [([name for name in _names(model) if name not in slow], args.scenes[0]), (slow, args.scenes[1])]
    parts.append((f"Bundled scenes, {args.model}", *_measured(model, args.model, scenes, groups, args.run)))
    if args.models:
        photos = cl.open_images(args.photos)
        chosen = photos.sample(len(photos), seed=0)[-TEST:][: args.images]
        for variant in map(parse_variant, args.models):
            model = cl.load_model(variant.name, **variant.options)
            quick = [name for name in _names(model) if _passes(model, name) <= QUICK]
            pictures = [sample.image for sample in chosen]
            found = _measured(model, variant.label, pictures, [(quick, len(pictures))], args.run)
            parts.append((f"Photos, {variant.label}", *found))
    text = _note(args)
    for title, shuffled, noisy in parts:
        text += f"\n**{title}**\n\n" + _table(shuffled, noisy)
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw(parts, args.figures / "sanity")


def _names(model: HookedModel) -> list[str]:
    """CAAP, E-CAAP, the others, and the control."""
    return [E_CAAP, *(name for name, method in METHODS.items() if method.runs_on(model))]


def _passes(model: HookedModel, name: str) -> float:
    return METHODS[parse_variant(name).name].passes(ModelSize.of(model))


def _measured(
    model: HookedModel, label: str, images: Sequence[Any], groups: list[tuple[list[str], int]], run: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of both checks; rows in the folder are not computed again."""
    found: dict[str, list[pd.DataFrame]] = {"shuffled": [], "noisy": []}
    for methods, count in groups:
        for place, image in enumerate(tqdm(images[: count if methods else 0], desc=f"{label}, {len(methods)} methods")):
            folder = run / label.replace("/", "-") / f"image {place}"
            pixels = MethodRuns.of(model, image, methods, None).inputs.double().sum().item()
            plan = {"model": model.fingerprint, "image": pixels, "samples": SAMPLES}
            kept = folder / "plan.json"
            if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != plan:
                raise cl.InputError(f"{folder} has results of another model or photo; choose another with --run.")
            folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(plan), encoding="utf-8")
            for kind, rows in found.items():
                known = _known(model, image, methods, place, folder / f"{kind}.csv")
                rows.append(known[known["method"].isin([parse_variant(name).label for name in methods])])
    return pd.concat(found["shuffled"], ignore_index=True), pd.concat(found["noisy"], ignore_index=True)


def _known(model: HookedModel, image: Any, methods: list[str], place: int, path: Path) -> pd.DataFrame:
    """All rows of an image; rows missing from its file are computed."""
    known = pd.read_csv(path) if path.exists() else pd.DataFrame({"method": []})
    missing = [name for name in methods if parse_variant(name).label not in set(known["method"])]
    if not missing:
        return known
    options: dict[str, Any] = {"seed": place, "progress": False}
    found = (
        cl.randomisation_check(model, image, missing, **options)
        if path.stem == "shuffled"
        else cl.sensitivity_check(model, image, missing, samples=SAMPLES, **options)
    )
    frames = [known, found.to_dataframe().assign(image=place)]
    whole = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    part = path.with_suffix(".part")
    whole.to_csv(part, index=False)
    part.replace(path)
    return whole


def _note(args: argparse.Namespace) -> str:
    photos = ""
    if args.models:
        weights = ", ".join(map(_weights, map(parse_variant, args.models)))
        photos = (
            f"Photos: {Path(args.photos).name}, the first {args.images} of the last {TEST} of a draw of all, seed 0, "
            f"which nothing was chosen by. Weights: {weights}. "
        )
    return (
        "Rank correlation (Spearman) of a map with the trained model's, after the head was shuffled, the head and the "
        "upper half of the blocks, and all weights (sizes: of the scores' sizes, for all weights); the same for every "
        "method, and each image with a draw of its own. Then, under "
        f"{SAMPLES} draws of uniform noise of up to 0.02 of the range of pixels, the largest change of the map as a "
        "share of its norm (max-sensitivity), the lowest rank correlation, and the change of the explained "
        "probability under the noise that changed the map most. Means ± standard errors over images (ddof 0); n: "
        "images, and those of them with a map that is not constant where all is shuffled. Explained class: the "
        f"trained model's prediction for the photo, throughout. Methods by their mean correlation over all steps. "
        f"{photos}{describe()}.\n"
    )


def _weights(variant: Variant) -> str:
    """A model's label and the source of its weights: the checkpoint's file, or the folder that gives its name."""
    checkpoint = Path(variant.options.get("checkpoint", variant.name))
    return f"{variant.label} ({checkpoint.parent.name if checkpoint.stem == 'model' else checkpoint.stem})"


def order_of(shuffled: pd.DataFrame) -> list[str]:
    """Methods sorted by their mean correlation over all steps and images, lowest first."""
    means = shuffled.groupby("method", sort=False)["similarity"].mean()
    return list(means.sort_values(kind="stable").index)


def _table(shuffled: pd.DataFrame, noisy: pd.DataFrame) -> str:
    steps = list(dict.fromkeys(shuffled["shuffled"]))
    half = steps[(len(steps) - 2) // 2]  # without the head and the embeddings, half of the blocks
    lines = [
        f"| method | n | head | to {half} | all | all, sizes | max-sensitivity | lowest correlation | score change |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in order_of(shuffled):
        rows, others = (frame[frame["method"] == method] for frame in (shuffled, noisy))
        by_step = {step: rows[rows["shuffled"] == step] for step in steps}
        last = by_step[steps[-1]]
        cells = [
            f"{last['image'].nunique()}, {int(last['similarity'].notna().sum())}",
            *(_spread(by_step[step]["similarity"]) for step in (steps[0], half, steps[-1])),
            _spread(last["absolute"]),
            _spread(others["max_sensitivity"], 3),
            _spread(others["correlation"], 3),
            f"{others['score_change'].mean():.1g}",
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _kept(shuffled, half)]) + "\n"


def _kept(shuffled: pd.DataFrame, half: str) -> str:
    """A sentence on methods whose map is nearly unchanged after the model has lost its prediction."""
    rows = shuffled[shuffled["shuffled"] == half]
    means = rows.groupby("method", sort=False)["similarity"].mean()
    kept = [f"{name} ({value:.2f})" for name, value in means.sort_values(ascending=False).items() if value > KEPT]
    each = rows.drop_duplicates("image")
    before, after = each["trained_score"].mean(), each["score"].mean()
    return (
        f"With the head and the blocks down to {half} shuffled, the explained probability is {after:.3f} on average, "
        f"from {before:.3f}. Maps whose correlation with the trained model's is still above {KEPT}: {', '.join(kept)}."
    )


def _spread(values: pd.Series, digits: int = 2) -> str:
    """Mean and standard error over the images that have a value."""
    known = values.dropna().to_numpy(float)
    if not len(known):
        return "-"
    return f"{np.mean(known):.{digits}f} ± {float(standard_error(known)):.{digits}f}"


def draw(parts: list[tuple[str, pd.DataFrame, pd.DataFrame]], path: Path) -> None:
    """Draw one row per data set: maps under shuffled weights, and under noise."""
    heights = [0.19 * frame["method"].nunique() + 1.2 for _, frame, _ in parts]
    figure = new_figure(10, sum(heights))
    grid = figure.subplots(
        len(parts), 2, squeeze=False, gridspec_kw={"width_ratios": [1.7, 1], "height_ratios": heights}
    )
    for (title, shuffled, noisy), axes in zip(parts, grid, strict=True):
        methods, steps = order_of(shuffled), list(dict.fromkeys(shuffled["shuffled"]))
        means = shuffled.groupby(["method", "shuffled"])["similarity"].mean()
        frame = pd.DataFrame(
            [{"method": m, "step": s, "mean": means[m, s], "se": 0.0} for m in methods for s in steps],
        )
        label = "rank correlation with\nthe trained model's map"
        plot_shuffled(frame, steps, axes[0], label=label, xlabel="shuffled up to this group", title=title)
        groups = noisy.groupby("method", sort=False)["max_sensitivity"]
        spread = {name: values.dropna().to_numpy(float) for name, values in groups}
        rows = [{"method": m, "mean": spread[m].mean(), "se": float(standard_error(spread[m]))} for m in methods]
        label = "max-sensitivity (log scale)"
        plot_points(pd.DataFrame(rows), "method", ax=axes[1], horizontal=True, label=label, title="small noise")
        axes[1].set_xscale("log")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
