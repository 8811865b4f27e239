"""Class discrimination on photos of two objects: does the map for one class lie on its object, not on the other?

    python -m experiments.pairs --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --pairs masks:PATH --out docs/tables/pairs.md

In every photo with masks of two or more classes, the two objects whose best class the model scores highest are
explained in turn. Prints the area under the ROC curve of a map between the explained object's own pixels and the
other's (pixels of both excluded; 0.5 is chance), and how often it is above 0.5. Errors are standard errors over maps
(ddof = 0).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.registry import METHODS
from caap_lab.data.image_set import Sample
from caap_lab.models.base import HookedModel
from caap_lab.variant import parse_variant

QUICK = [
    "caap",
    "grad_cam",
    "grad_cam_plus_plus",
    "transformer_attribution",
    "tam",
    "ixg_plus",
    "libra_ixg_plus",
    "full_grad_plus",
    "input_x_gradient",
    "attcat",
    "grad_sam",
    "gen_att",
    "legrad",
    "attn_lrp",
    "mutex",
]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.pairs", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--pairs", required=True, help="what cl.open_images opens, with masks of several classes")
    parser.add_argument("--methods", nargs="+", default=QUICK, help="class-specific ones; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    lines = [f"Pixels that both masks hold are left out; bilinear maps. {describe()}."]
    images = cl.open_images(args.pairs)
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        pairs = [pair for sample in images if (pair := two_objects(model, sample)) is not None]
        lines += ["", f"**{spec.label}**, {len(pairs)} photos, {2 * len(pairs)} maps", ""]
        lines += ["| method | area under the curve | above 0.5 |", "|---|---|---|"]
        for name in tqdm(args.methods):
            if not METHODS[name].class_specific:
                raise SystemExit(f"{name} has the same map for every class.")
            areas = np.array([area for pair in pairs for area in discrimination(model, name, *pair)])
            error = areas.std() / len(areas) ** 0.5
            lines.append(f"| {name} | {areas.mean():.3f} ± {error:.3f} | {(areas > 0.5).mean():.0%} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if args.out is not None:
        args.out.write_text(table, encoding="utf-8")


Pair = tuple[torch.Tensor, list[int], list[np.ndarray]]


def two_objects(model: HookedModel, sample: Sample) -> Pair | None:
    """The photo as the model's input, the best classes of its two best-scored objects, and their own pixels."""
    objects: dict[int, tuple[np.ndarray, list[int]]] = {}
    for label, mask in sample.regions.masks.items():  # classes that count as the same object share its mask
        if label is not None:
            objects.setdefault(id(mask), (mask, []))[1].append(label)
    x = model.preprocess(sample.image)
    with torch.no_grad():
        logits = model(x)[0]
    best = [(max(labels, key=lambda label: float(logits[label])), mask) for mask, labels in objects.values()]
    best.sort(key=lambda one: -float(logits[one[0]]))
    masks = [model.preprocessing.mask(mask).numpy() for _, mask in best[:2]]
    if len(masks) < 2:
        return None
    own = [masks[0] & ~masks[1], masks[1] & ~masks[0]]
    return (x, [label for label, _ in best[:2]], own) if all(mask.any() for mask in own) else None


def discrimination(
    model: HookedModel, method: str, x: torch.Tensor, labels: list[int], own: list[np.ndarray]
) -> list[float]:
    """Areas under the ROC curve of the maps for both classes."""
    areas = []
    for label, asked, other in ((labels[0], own[0], own[1]), (labels[1], own[1], own[0])):
        m = cl.attribute(model, x, method, label)
        assert isinstance(m, cl.AttributionMap)
        scores = m.upsample().numpy()
        either = asked | other
        areas.append(float(roc_auc_score(asked[either], scores[either])))
    return areas


if __name__ == "__main__":
    main()
