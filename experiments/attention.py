"""Attention within objects, between objects and to the background over the layers (the paper's Fig. 6).

    python -m experiments.attention --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --masks masks:PATH imagenet-s:PATH --out docs/tables/attention.md --figures docs/images

Prints Markdown and draws a figure: of `cl.attention_regions`, means over images of the mean over heads with standard
errors (ddof = 0). A set of images is named after the last part of its path. Attention to near patches stays within any
compact region, so there is a control: the same photos with the masks of the next one.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.plots.attention import REGION_STYLES, plot_regions
from caap_lab.plots.style import LevelStyle, new_figure, save_figure, shared_legend
from caap_lab.variant import parse_variant

KINDS = ("intra-object", "inter-object", "object-to-background")
CONTROL = "intra-object, the next photo's masks"
STYLES = {kind: REGION_STYLES[kind] for kind in KINDS} | {CONTROL: LevelStyle("0.5", (0, (1, 1)), "x")}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.attention", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", nargs="+", required=True, help="what cl.open_images opens, with masks")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figure into this folder")
    args = parser.parse_args()
    drawn: dict[tuple[str, str], tuple[cl.AttentionRegions, cl.AttentionRegions]] = {}
    lines = [
        "Weight: mean over pairs, in thousandths. Mass: percent of a query's attention. Both are averaged over heads, "
        "then over the photos that have such pairs, ± standard error. Control: intra-object mass with the masks of the "
        "next photo.",
        f"Distance in pixels, entropy in nats, of all patches. {describe()}.",
    ]
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        assert isinstance(model, cl.HookedViT)
        for source in tqdm(args.masks):
            images = cl.open_images(source)
            found, control = (cl.attention_regions(model, each) for each in (images, with_next_masks(images)))
            name = Path(source.partition(":")[2]).name
            drawn[spec.label, name] = (found, control)
            lines += ["", f"**{spec.label}, {name}**, {counts(found)}", "", *table(found, control)]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw(drawn, args.figures / "attention")


def with_next_masks(images: cl.ImageSet) -> cl.ImageSet:
    """Each image with the masks of the next one; the last with the first one's."""
    others = (*images.samples[1:], images.samples[0])
    pairs = zip(images.samples, others, strict=True)
    return replace(images, samples=tuple(replace(one, read_regions=next_one.read_regions) for one, next_one in pairs))


def counts(found: cl.AttentionRegions) -> str:
    """Number of images with objects on their patches, and with several, as text."""
    has = np.isfinite(found.mass[:, :, 0, 0])
    one, several = (int(has[:, found.kinds.index(kind)].sum()) for kind in ("intra-object", "inter-object"))
    return f"{one} photos with an object, {several} with several"


def table(found: cl.AttentionRegions, control: cl.AttentionRegions) -> list[str]:
    """One row per layer."""
    kinds = [kind for kind in KINDS if np.isfinite(found.mean()[found.kinds.index(kind)]).all()]
    columns = {
        f"{quantity}: {kind}": over_layers(found, quantity, kind) for quantity in ("weight", "mass") for kind in kinds
    }
    columns["control"] = over_layers(control, "mass", "intra-object")
    columns["distance"] = [f"{value:.0f}" for value in found.mean("distance", heads="mean")]
    columns["entropy"] = [f"{value:.2f}" for value in found.mean("entropy", heads="mean")]
    lines = [f"| layer | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    rows = zip(*columns.values(), strict=True)
    return lines + [f"| {layer} | {' | '.join(row)} |" for layer, row in enumerate(rows)]


def draw(drawn: dict[tuple[str, str], tuple[cl.AttentionRegions, cl.AttentionRegions]], path: Path) -> None:
    """Draw the mass of all kinds over layers, and of intra-object pairs with the next photo's masks."""
    models, sets = (list(dict.fromkeys(key[i] for key in drawn)) for i in (0, 1))
    figure = new_figure(4.2 * len(models), 3 * len(sets) + 0.6)
    axes = figure.subplots(len(sets), len(models), squeeze=False, sharex=True, sharey=True)
    for (model, name), (found, control) in drawn.items():
        ax = axes[sets.index(name), models.index(model)]
        by_chance = control.over_layers("mass").query("kind == 'intra-object'").assign(kind=CONTROL)
        frame = pd.concat([found.over_layers("mass"), by_chance])
        percent = frame.assign(mean=100 * frame["mean"], se=100 * frame["se"])
        title = f"{model}, {name}: {counts(found)}"
        plot_regions(percent, ax, styles=STYLES, ylabel="attention mass (%)", title=title, legend=False)
        ax.label_outer()
    shared_legend(figure, columns=2)
    save_figure(figure, path)


def over_layers(found: cl.AttentionRegions, quantity: Literal["weight", "mass"], kind: str) -> list[str]:
    """Mean and standard error of a kind over the layers, in thousandths or percent."""
    scale, place = {"weight": 1000, "mass": 100}[quantity], found.kinds.index(kind)
    means = scale * found.mean(quantity, heads="mean")[place]
    errors = scale * found.standard_error(quantity, heads="mean")[place]
    return [f"{mean:.1f} ± {error:.1f}" for mean, error in zip(means, errors, strict=True)]


if __name__ == "__main__":
    main()
