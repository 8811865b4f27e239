"""Where the logit lens can be trusted: ranks of the predicted class, and agreement with a map that intervenes.

    python -m experiments.logit_lens --models DeiT-Ti=deit_tiny_patch16_224.fb_in1k:checkpoint=PATH \
        --photos folder:PATH --out docs/tables/logit_lens.md

For each block: the median rank of the model's own prediction among all classes, read at the class token and at the
patches, and Spearman's correlation of the patches' map with CAAP's.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.variant import parse_variant
from experiments.photos import one


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.logit_lens", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens")
    parser.add_argument("--images", type=int, default=32, help="photos; default %(default)s")
    parser.add_argument("--cutoff", type=int, default=8, help="cutoff of CAAP; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    photos = cl.open_images(args.photos).sample(args.images, seed=0)
    lines = [
        f"{len(photos)} photos (drawn with seed 0), each model's own prediction, mean ± standard error of Spearman's "
        f"correlation with CAAP's map (cutoff {args.cutoff}). {describe()}.",
    ]
    for variant in map(parse_variant, args.models):
        model = cl.load_model(variant.name, **variant.options)
        assert isinstance(model, cl.HookedViT), "a lens reads tokens"
        images = [photo.image for photo in photos]
        maps = [one(cl.caap(model, image, cutoff=args.cutoff)) for image in tqdm(images, desc=variant.label)]
        explained: list[Any] = [found.target for found in maps]
        lens = cl.logit_lens(model, images, target=explained)
        agreement, ranks = lens.correlation(maps), lens.rank().per_image
        lines += ["", f"**{variant.label}**, {model.n_classes} classes", ""]
        lines += ["| block | rank, class token | rank, patches | correlation |", "|---|---|---|---|"]
        for place, layer in enumerate(lens.axes["layer"]):
            prefix, patches = ranks[:, place, :1], ranks[:, place, lens.n_prefix :]
            medians = f"{np.median(prefix):g} | {np.median(patches):g}"
            error = agreement.standard_error[place]
            lines.append(f"| {layer} | {medians} | {agreement.mean[place]:+.2f} ± {error:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
