"""Registers at test time on real models: norms, predictions and attention rollout before and after.

    python -m experiments.test_time_registers --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --calibration folder:PATH --photos folder:PATH --masks masks:PATH --out docs/tables/test_time_registers.md \
        --figure docs/images/test_time_registers.png

Neurons are found on the calibration photos, and everything is measured on others.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.data.image_set import Sample
from caap_lab.variant import parse_variant
from experiments.photos import one


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.test_time_registers", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--calibration", required=True, help="what cl.open_images opens")
    parser.add_argument("--photos", required=True, help="the same, with labels")
    parser.add_argument("--masks", required=True, help="the same, with masks")
    parser.add_argument(
        "--images", type=int, default=64, help="photos of either, drawn with seed 0; default %(default)s"
    )
    parser.add_argument("--maps", type=int, default=32, help="photos with masks; default %(default)s")
    parser.add_argument("--neurons", type=int, nargs="+", default=[1, 5, 10, 20], help="numbers of moved neurons")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--figure", type=Path, help="file for a figure of the last model's rollout before and after")
    args = parser.parse_args()
    calibration, photos, masks = (
        list(cl.open_images(spec).sample(count, seed=0))
        for spec, count in ((args.calibration, args.images), (args.photos, args.images), (args.masks, args.maps))
    )
    lines = [
        f"{len(calibration)} photos to find the neurons, {len(photos)} others for norms and predictions, {len(masks)} "
        "with masks for the area under the precision-recall curve (AUPR1) of attention rollout, in percent. "
        f"Right: the prediction is the label. Mean ± standard error (ddof 0). {describe()}."
    ]
    for variant in map(parse_variant, args.models):
        model = cl.load_model(variant.name, **variant.options)
        assert isinstance(model, cl.HookedViT)
        images = model.preprocess([sample.image for sample in photos])
        found = cl.register_neurons(
            model, [sample.image for sample in calibration], top=max(args.neurons), batch_size=args.batch_size
        )
        rows = found.table.head(5)[["layer", "neuron", "difference"]].itertuples(index=False)
        names = ", ".join(f"{layer}.{neuron} ({difference:.1f})" for layer, neuron, difference in rows)
        lines += ["", f"**{variant.label}**", "", f"{found}. The first (layer.neuron, difference): {names}.", ""]
        lines += [
            f"| model | largest patch norm behind block {found.layer} | times the median | norm of the added token "
            "| prediction stays | right | AUPR1 |",
            "|---|---|---|---|---|---|---|",
        ]
        changed = {"as it is": model, "one more token, nothing moved": model.with_extra_tokens()}
        changed |= {f"{n} neuron{'s' * (n != 1)} moved": found.top(n).moved(model) for n in args.neurons}
        before = predictions(model, images, args.batch_size)
        for text, other in changed.items():
            row = measure(other, images, found.layer, args.batch_size)
            now = predictions(other, images, args.batch_size)
            right = np.mean([index == sample.label for index, sample in zip(now.tolist(), photos, strict=True)])
            areas = np.array([area(other, sample) for sample in masks])
            cells = [text, *row, f"{(now == before).float().mean():.0%}", f"{right:.0%}", spread(areas)]
            lines.append(f"| {' | '.join(cells)} |")
        if args.out is not None:
            args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if args.figure is not None:
            draw(model, found.top(10).moved(model), masks[:4]).savefig(args.figure, dpi=110)
    print("\n".join(lines))


def measure(model: cl.HookedViT, images: Tensor, layer: int, batch_size: int) -> list[str]:
    """Largest norm of a patch, its ratio to the median, and the norm of the added token."""
    norms = cl.token_norms(model, images, layers=layer, batch_size=batch_size)
    tokens = norms.per_image[:, 0]
    last = model.spec.n_prefix - 1
    added = spread(tokens[:, last]) if model.spec.prefix[-1] == "reg" else ""
    return [spread(tokens[:, last + 1 :].max(axis=1)), spread(norms.ratios[:, 0].max(axis=1)), added]


def predictions(model: cl.HookedViT, images: Tensor, batch_size: int) -> Tensor:
    """Classes."""
    with torch.no_grad():
        return torch.cat([model(batch) for batch in images.split(batch_size)]).argmax(1)


def rollout(model: cl.HookedViT, image: Tensor) -> cl.AttributionMap:
    """Attention rollout, which is the same for all classes."""
    return one(cl.attribute(model, image, "rollout", 0, progress=False))


def area(model: cl.HookedViT, sample: Sample) -> float:
    """AUPR1 of that map in percent."""
    (mask, *_) = sample.regions.masks.values()
    image = model.preprocess(sample.image)
    return 100 * cl.localisation(rollout(model, image), model.preprocessing.mask(mask)).aupr1


def draw(model: cl.HookedViT, calm: cl.HookedViT, samples: list[Sample]) -> Figure:
    """Draw rollout of some photos before and after."""
    figure = Figure(figsize=(2.1 * len(samples), 6.6), layout="constrained")
    axes = figure.subplots(3, len(samples))
    for column, sample in enumerate(samples):
        image = model.preprocess(sample.image)
        axes[0, column].imshow(model.preprocessing.to_rgb(image[0]))
        for row, this in enumerate((model, calm), start=1):
            axes[row, column].imshow(rollout(this, image).scores, cmap="viridis")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, text in zip(axes[:, 0], ("photo", "rollout, model as it is", "rollout, 10 neurons moved"), strict=True):
        ax.set_ylabel(text)
    return figure


def spread(values: np.ndarray) -> str:
    """Mean ± standard error."""
    return f"{values.mean():.1f} ± {values.std() / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
