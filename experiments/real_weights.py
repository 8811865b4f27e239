"""All methods on real weights and held-out photos: insertion, deletion, AUPR, the pointing game, and the best methods.

    python -m experiments.real_weights quick --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --masks masks:PATH --photos folder:PATH --run runs/real \
        --out docs/tables/real_weights.md --figures docs/images

The first argument selects the methods and the number of photos: see `GROUPS`. The same command resumes a stopped run.
`--read` makes the tables from the trials of one or several folders, while other processes may be writing there.
"""

import argparse
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import timm

import caap_lab as cl
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.base import HookedModel
from caap_lab.models.checkpoint import read_state_dict
from caap_lab.variant import Variant, parse_variant
from experiments.controls import register_random
from experiments.photos import held_out
from experiments.real_weights_tables import write

QUICK = (
    *("caap", "E-CAAP=caap:attention=cached", "grad_cam", "rollout", "transformer_attribution", "tam", "ixg_plus"),
    *("libra_ixg_plus", "mutex", "input_x_gradient", "grad_cam_plus_plus", "attcat", "grad_sam", "gen_att", "legrad"),
    *("attn_lrp", "full_grad_plus"),
)
CONTROL = ("caap", "random")
"""CAAP beside scores that are drawn at random."""
EXPENSIVE = (
    *("vit_cx", "simple_insertion", "simple_deletion", "occlusion", "integrated_gradients", "smoothgrad", "score_cam"),
    *("tis", "atman", "rise:samples=1000"),
)
"""All that take many passes, 50 to 1000. MDA takes thousands, which is hours for these photos: name it in --methods."""
BLACK_BOX = (
    *("simple_insertion", "simple_deletion", "grad_cam", "grad_cam_plus_plus", "input_x_gradient", "occlusion"),
    *("rise:samples=1000", "random"),
)


class Group(NamedTuple):
    """Methods that are measured on the same photos."""

    methods: tuple[str, ...]
    images: int
    reference: str = "caap"
    """The method with which all others are compared."""
    step: int | None = None
    """Pixels between two points of a curve; None for RISE's own rows of 8 (28 steps at 224 pixels)."""
    black_box: bool = False
    """Models are wrapped, and give access only to pixels, logits and feature maps."""


GROUPS = {
    "quick": Group(QUICK, 64),
    "control": Group(CONTROL, 64),
    "expensive": Group((*QUICK, *EXPENSIVE, "random"), 24),
    "large": Group((*QUICK, "vit_cx", "random"), 24, step=16 * 224),
    "black_box": Group(BLACK_BOX, 16, reference="simple_insertion", black_box=True),
}
GRID = 7
"""Rows and columns of a wrapped CNN's maps: those of its last feature maps at 224 pixels."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.real_weights", description=__doc__)
    parser.add_argument("group", choices=list(GROUPS), help="methods and number of photos")
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", required=True, help="what cl.open_images opens, with masks")
    parser.add_argument("--photos", help="the same; masks are not read")
    parser.add_argument(
        "--names", nargs=2, default=["ECSSD", "ImageNet validation"], help="names of the two sets of photos"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        help="compute, or with --read show, only these methods of the group; without --read, no table is written",
    )
    parser.add_argument("--images", type=int, help="photos of each set; by default the group's")
    parser.add_argument("--run", type=Path, default=Path("runs/real"), help="folder of the results")
    parser.add_argument("--read", type=Path, nargs="+", metavar="RUN", help="compute nothing: read these folders")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="the table as Markdown; a CSV with all numbers is written next to it")
    parser.add_argument("--figures", type=Path, help="folder for the plots of ranks")
    args = parser.parse_args()
    register_random()
    group = GROUPS[args.group]
    data = {name: held_out(cl.open_images(text), args.images or group.images)
            for name, text in zip(args.names, (args.masks, args.photos), strict=True) if text}  # fmt: skip
    variants = [parse_variant(text) for text in args.models]
    models = [wrapped(variant) for variant in variants] if group.black_box else variants
    options: dict[str, Any] = {"protocol": protocol(group), "batch_size": args.batch_size}
    methods = args.methods or group.methods
    if args.read:
        found = [cl.benchmark(models, methods, data, out=folder, compute=False, **options) for folder in args.read]
        result = reduce(cl.BenchmarkResult.join, found)
    else:
        result = cl.benchmark(models, methods, data, out=args.run, **options)
    for row in result.failed.itertuples():
        print(f"failed: {row.method} of {row.model} on {row.image}: {row.error}")
    print(result.progress)
    if args.read or not args.methods:
        write(result, args.group, group.reference, args.out, args.figures)


def protocol(group: Group) -> CurveProtocol:
    """The protocol of the curves."""
    return curve_protocol("rise-28") if group.step is None else CurveProtocol("rise", step=group.step)


def wrapped(variant: Variant) -> HookedModel:
    """A CNN of timm as a black box, from "NAME:checkpoint=PATH,mean=[...],std=[...],crop_pct=..."."""
    options = dict(variant.options)
    net = timm.create_model(variant.name)
    net.load_state_dict(read_state_dict(options.pop("checkpoint")))
    net = net.float()
    preprocessing = cl.Preprocessing((224, 224), **options)
    return cl.BlackBoxModel(net, grid=(GRID, GRID), preprocessing=preprocessing, name=variant.label)


if __name__ == "__main__":
    main()
