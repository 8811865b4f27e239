"""Maps of a zero-shot model's class: of its own logit, or of its contrast to the mean of all classes.

    python -m experiments.contrast --models CLIP=vit_base_patch16_clip_quickgelu_224.openai:checkpoint=PATH,head=PATH \
        --masks masks:PATH --out docs/tables/contrast.md

The head is a file of text embeddings, see `cl.save_zero_shot_head`. Both targets predict the same class. The metric is
AUPR1, the agreement of a map with the object's mask.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.data.image_set import Sample
from caap_lab.models.base import HookedModel
from caap_lab.variant import parse_variant
from experiments.photos import one

METHODS = ("grad_cam", "ixg_plus", "libra_ixg_plus", "libra_ixg_plus:start_layer=8", "caap")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.contrast", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", required=True, help="what cl.open_images opens, with masks")
    parser.add_argument("--images", type=int, default=16, help="photos; default %(default)s")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    photos = cl.open_images(args.masks).sample(args.images, seed=0)
    lines = [
        f"AUPR1 in percent of {len(photos)} photos (drawn with seed 0), mean ± standard error (ddof 0). Explained "
        f"class: the model's own prediction. {describe()}.",
    ]
    for variant in map(parse_variant, args.models):
        model = cl.load_model(variant.name, **variant.options)
        lines += ["", f"**{variant.label}**", "", "| method | own logit | contrast to the mean | difference |"]
        lines += ["|---|---|---|---|"]
        for method in args.methods:
            found = np.array([aupr(model, photo, method) for photo in tqdm(photos, desc=method)]) * 100
            columns = [*found.T, found[:, 1] - found[:, 0]]
            lines.append(f"| {method} | {' | '.join(map(mean_and_error, columns))} |")
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def aupr(model: HookedModel, photo: Sample, method: str) -> tuple[float, float]:
    """AUPR1 of the map of the class's own logit, and of the map of its contrast."""
    contrast = one(cl.attribute(model, photo.image, method))
    assert contrast.target_class is not None and contrast.target == cl.contrast(contrast.target_class)
    own = cl.logit(contrast.target_class)
    raw = contrast.for_target(own) if contrast.all_scores is not None else cl.attribute(model, photo.image, method, own)
    (mask,) = photo.regions.masks.values()
    seen = model.preprocessing.mask(mask)
    return cl.localisation(one(raw), seen).aupr1, cl.localisation(contrast, seen).aupr1


def mean_and_error(values: np.ndarray) -> str:
    """Mean and standard error."""
    return f"{values.mean():.1f} ± {values.std() / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
