"""LeGrad and AttnLRP in the forms that their authors use: do the maps lie on the object?

    python -m experiments.legrad_and_lrp --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --masks masks:PATH --out docs/tables/legrad_and_lrp.md

Each map explains the model's own prediction. Errors are standard errors over photos (ddof = 0).
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.registry import find_method
from caap_lab.data.image_set import Sample
from caap_lab.models.base import HookedModel
from caap_lab.variant import parse_variant

VARIANTS = (
    "legrad",
    "legrad:start_layer=-2",
    "legrad:class_token=own",
    "legrad:class_token=own,start_layer=-2",
    "attn_lrp",
    "attn_lrp:gamma=0.05",
    "attn_lrp:gamma=0.25",
    "attn_lrp:rules=cp_lrp",
    "attn_lrp:rules=cp_lrp,gamma=0.05",
    "attn_lrp:rules=cp_lrp,gamma=0.25",
    "attn_lrp:rules=cp_lrp,gamma=0.25,patch_gamma=0.25,at=pixels",
    "libra_ixg_plus",
)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.legrad_and_lrp", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", required=True, help="what cl.open_images opens, with masks")
    parser.add_argument("--images", type=int, default=48, help="photos; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    samples = list(cl.open_images(args.masks).sample(args.images, seed=0))
    models = [parse_variant(text) for text in args.models]
    columns = {spec.label: measure(cl.load_model(spec.name, **spec.options), samples) for spec in models}
    heads = [f"{label}: {name}" for label in columns for name in ("AUPR1", "PG")]
    lines = [
        f"{len(samples)} photos with masks, drawn with seed 0; the model's own prediction; in percent, mean ± standard "
        f"error (ddof 0). {describe()}.",
        "",
        f"| method | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
        *(f"| `{name}` | {' | '.join(cell for of in columns.values() for cell in of[name])} |" for name in VARIANTS),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def measure(model: HookedModel, samples: list[Sample]) -> dict[str, list[str]]:
    """AUPR1 and pointing game of each variant."""
    masks = [model.preprocessing.mask(np.logical_or.reduce(list(s.regions.masks.values()))) for s in samples]
    found = {}
    for name in tqdm(VARIANTS, desc=model.model_name):
        variant = parse_variant(name)
        maps = find_method(variant.name).function(model, [s.image for s in samples], progress=False, **variant.options)
        assert isinstance(maps, list)
        places = [cl.localisation(m, mask) for m, mask in zip(maps, masks, strict=True)]
        found[name] = [_cell(100 * np.array([getattr(place, of) for place in places])) for of in ("aupr1", "pointing")]
    return found


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std() / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
