"""How close attribution patching comes to patched runs: plain, with AtP*'s softmax, and with LibraGrad's rules.

    python -m experiments.attribution_patching \
        --models demo A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --masks demo:single masks:PATH --out docs/tables/attribution_patching.md

Each photo is paired with itself with its object blurred. Every place of the table is patched in a separate run
(`cl.trace`), which takes most of the time, and estimated by `cl.attribution_patching`. Prints Spearman's rank
correlation of the two over all places of a pair; errors are standard errors over pairs.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.data.image_set import Sample
from caap_lab.models.vit import HookedViT
from caap_lab.variant import parse_variant

EVERY = {"points": "resid_pre", "by": "token"}
PLACES: dict[str, dict[str, Any]] = {
    "resid_pre by token": EVERY,
    "mlp_out by token": EVERY | {"points": "mlp_out"},
    "mlp_out by layer": {"points": "mlp_out", "by": "layer"},
    "z by head": {"points": "z", "by": "head"},
    "q by head": {"points": "q", "by": "head"},
    "k by head": {"points": "k", "by": "head"},
}
WAYS: dict[str, dict[str, Any]] = {
    "AtP": {},
    "AtP*": {"correction": "softmax"},
    "Libra": {"rules": "libra"},
    "Libra, AtP*": {"correction": "softmax", "rules": "libra"},
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.attribution_patching", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", nargs="+", required=True, help="what cl.open_images opens, one for each model")
    parser.add_argument("--images", type=int, default=16, help="photos per model; default %(default)s")
    parser.add_argument("--step", type=int, default=3, help="by token, use every n-th layer and token; default 3")
    parser.add_argument("--directions", nargs="+", default=["denoise", "noise"], help="default both")
    parser.add_argument(
        "--places", nargs="+", choices=list(PLACES), default=list(PLACES), help="rows of the table; default all"
    )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    lines = [
        "Spearman's rank correlation of estimated and measured effects, over all places of a pair; mean ± standard "
        f"error over pairs. Objects blurred; the default target; by token, one in {args.step} layers and tokens. "
        f"{describe()}."
    ]
    for spec, masks in zip(map(parse_variant, args.models), args.masks, strict=True):
        model = cl.load_model(spec.name, **spec.options)
        assert isinstance(model, HookedViT)
        clean, corrupted = blurred_objects(model, list(cl.open_images(masks).sample(args.images, seed=0)))
        for direction in args.directions:
            lines += ["", f"**{spec.label}**, {direction}, {len(clean)} pairs", ""]
            lines += [f"| places | number | {' | '.join(WAYS)} |", f"|---|---|{'---|' * len(WAYS)}"]
            for name in tqdm(args.places, desc=f"{spec.label}, {direction}"):
                row = agreement(model, clean, corrupted, PLACES[name], direction, args.step)
                lines.append(f"| {name} | {' | '.join(row)} |")
                if args.out is not None:
                    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def blurred_objects(model: HookedViT, samples: list[Sample]) -> tuple[list[Any], list[Any]]:
    """Photos as the model's input, and the same photos with their objects blurred."""
    photos, masks = [], []
    for sample in samples:
        objects = [model.preprocessing.mask(mask).numpy() for mask in sample.regions.masks.values()]
        photos.append(model.preprocess(sample.image)[0])
        masks.append(np.any(objects, axis=0))
    return photos, list(cl.corrupt(model, photos, "blur", masks=masks))


def agreement(
    model: HookedViT, clean: list[Any], corrupted: list[Any], places: dict[str, Any], direction: str, step: int
) -> list[str]:
    """A row of the table: the number of places, and the rank correlation of each estimate available for them."""
    options = places | {"direction": direction, "progress": False}
    if places["by"] == "token" and step > 1:
        tokens = [*range(model.spec.n_prefix), *range(model.spec.n_prefix, model.spec.n_tokens, step)]
        options |= {"layers": list(range(1, model.n_layers, step)), "tokens": tokens}
    measured = cl.trace(model, clean, corrupted, **options)
    row = [f"{measured.mean.size:,}"]
    projected = places["points"] in ("q", "k")
    for way in WAYS.values():
        if (projected and way == WAYS["Libra"]) or (not projected and "correction" in way):
            row.append("-")
            continue
        found = cl.attribution_patching(model, clean, corrupted, **options, **way).compare(measured)
        row.append(f"{found.mean[0]:.3f} ± {found.standard_error[0]:.3f}")
    return row


if __name__ == "__main__":
    main()
