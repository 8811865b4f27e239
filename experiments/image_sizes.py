"""Effect of a finer grid of patches: accuracy, insertion, deletion and localisation of CAAP, and cost, by input size.

    python -m experiments.image_sizes --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --photos folder:PATH --masks masks:PATH --out docs/tables/image_sizes.md --figures docs/images

Every model is loaded once per size with resampled positions; nothing is trained. Accuracy is measured on the labelled
photos; a map explains the prediction at its own size, on photos with masks. Errors are standard errors over photos
(ddof = 0). The figure shows only the maps, without the photos.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.data.image_set import Sample
from caap_lab.metrics.localisation import Localisation
from caap_lab.metrics.perturbation import PerturbationCurves
from caap_lab.plots.maps import plot_map
from caap_lab.plots.style import new_figure, save_figure
from caap_lab.variant import parse_variant
from experiments.photos import one

COLUMNS = (
    *("image size", "grid", "neighbourhood", "top-1", "Ins", "Del", "InsDel", "AUPR1", "PG"),
    *("CPU s per forward", "CPU s per map", "forwards per map"),
)
STEPS = 14
"""Steps of the curves at every size: each changes the same fraction of the image."""
MOST_DRAWN = 4
Model = cl.HookedViT | cl.HookedCNN | cl.HookedMixer


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.image_sizes", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens, with labels")
    parser.add_argument("--masks", required=True, help="the same, with masks")
    parser.add_argument("--images", type=int, default=8, help="photos with masks; default %(default)s")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["224:box1", "448:box1", "448:box2"],
        metavar="SIZE:NEIGHBOURHOOD",
        help="default %(default)s",
    )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figure into this folder")
    args = parser.parse_args()
    photos, masked = cl.open_images(args.photos), cl.open_images(args.masks).sample(args.images, seed=0)
    lines = [
        f"Top-1 of {len(photos)} labelled photos; the rest from {len(masked)} photos with masks (drawn with seed 0), "
        f"mean ± standard error (ddof 0). Quality in percent. Curves: {STEPS} equal steps, else protocol rise-28. "
        f"CPU seconds: of the fastest photo. {describe()}."
    ]
    for spec in map(parse_variant, args.models):
        lines += ["", f"**{spec.label}**", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        drawn = []
        top1: dict[str, float] = {}
        for setting in args.settings:
            size, _, neighbourhood = setting.partition(":")
            model = cl.load_model(spec.name, **spec.options, image_size=int(size))
            top1[size] = top1.get(size) or accuracy(model, photos)
            cells, maps = measure(model, neighbourhood, masked)
            cells = [size, "{} x {}".format(*model.grid), neighbourhood, f"{100 * top1[size]:.1f}", *cells]
            lines.append(f"| {' | '.join(cells)} |")
            drawn.append(maps)
        if args.figures is not None:
            args.figures.mkdir(parents=True, exist_ok=True)
            draw(drawn, args.figures / f"image_sizes_{spec.label.lower().replace('-', '_')}")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def measure(model: Model, neighbourhood: str, masked: cl.ImageSet) -> tuple[list[str], list[cl.AttributionMap]]:
    """The columns of one row from its quality on, and the maps."""
    found: list[cl.AttributionMap] = []
    curves: list[PerturbationCurves] = []
    places: list[Localisation] = []
    forward, seconds = [], []
    cl.caap(model, masked[0].image, neighbourhood=neighbourhood)  # the very first run is slower
    for sample in tqdm(masked, desc=f"{model.image_size[0]} {neighbourhood}"):
        x = model.preprocess(sample.image)
        with torch.no_grad():
            start = time.process_time()
            model(x)
            forward.append(time.process_time() - start)
        start = time.process_time()
        m = one(cl.caap(model, x, neighbourhood=neighbourhood))
        seconds.append(time.process_time() - start)
        found.append(m)
        steps = tuple(np.linspace(0, 1, STEPS + 1).tolist())
        curve = cl.insertion_deletion(model, x, m, protocol="rise-28", step=steps, progress=False)
        assert not isinstance(curve, list)
        curves.append(curve)
        places.append(cl.localisation(m, model.preprocessing.mask(object_of(sample))))
    insertion, deletion = (100 * np.array([getattr(c, name) for c in curves]) for name in ("insertion", "deletion"))
    quality = [
        *(insertion, deletion, insertion - deletion),
        *(100 * np.array([getattr(place, name) for place in places]) for name in ("aupr1", "pointing")),
    ]
    passes = min(seconds) / min(forward)
    cells = [f"{values.mean():.1f} ± {values.std() / len(values) ** 0.5:.1f}" for values in quality]
    cells += [f"{min(forward):.2f}", f"{min(seconds):.2f}", f"{passes:.1f}"]
    return cells, found


def object_of(sample: Sample) -> np.ndarray:
    """The union of all objects of a photo."""
    return np.logical_or.reduce(list(sample.regions.masks.values()))


def accuracy(model: Model, photos: cl.ImageSet) -> float:
    """Fraction of photos whose label is the highest class."""
    right = []
    for sample in photos:
        with torch.no_grad():
            right.append(int(model(model.preprocess(sample.image)).argmax()) == sample.label)
    return float(np.mean(right))


def draw(maps: list[list[cl.AttributionMap]], path: Path) -> None:
    """Draw maps of the same photos, one row per setting."""
    count = min(MOST_DRAWN, len(maps[0]))
    figure = new_figure(2.1 * count, 2.35 * len(maps))
    axes = figure.subplots(len(maps), count, squeeze=False)
    for row, of_size in enumerate(maps):
        for col, m in enumerate(of_size[:count]):
            rows, cols = m.scores.shape
            name = m.target_name.split(",")[0]
            plot_map(
                m.scores.numpy(), None, axes[row, col], title=f"{name}\n{rows} x {cols}, {m.settings['neighbourhood']}"
            )
    save_figure(figure, path)


if __name__ == "__main__":
    main()
