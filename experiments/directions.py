"""The evidence in a patch alone, and the image's need for it: CAAP in both directions, and rank sums of two maps.

    python -m experiments.directions --models ViT-tiny=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --masks masks:PATH --run runs/directions --images 64 --out docs/tables/directions.md --figures docs/images

CAAP puts patches of the image into a blank ("insert"); with `direction="remove"` patches of the blank into the image.
Both directions, Libra IxG+ and Transformer Attribution, and rank sums of two of them are compared under several
conventions of insertion and deletion, by SaCo and by masks. Photos are the last 64 of all, drawn with seed 0, or the
first of these; settings were chosen on others. With `--targets prediction logit`, a model whose classes are texts is
explained by contrasts, and under the first convention by its own logits as well. The same command resumes a stopped
run, and with `--no-compute` makes the table from the finished trials.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from experiments.directions_table import differences, figure, table
from experiments.photos import held_out

METHODS = (
    "caap",
    "caap:direction=remove",
    "libra_ixg_plus",
    "transformer_attribution",
    "rank_sum:first=caap,second=libra_ixg_plus",
    "rank_sum:first=caap,second=transformer_attribution",
    "rank_sum:first=caap,second=caap:direction=remove",
    "rank_sum:first=libra_ixg_plus,second=transformer_attribution",
)
LATER = ("libra_ixg_plus:start_layer=8", "rank_sum:first=caap,second=libra_ixg_plus:start_layer=8")
"""For CLIP, whose first blocks Libra IxG+ reads badly."""
FREE = ("caap:context=free", "caap:direction=remove,context=free")
"""Methods that cost one pass per patch."""


def protocols(step: int | str) -> dict[str, tuple[CurveProtocol, Sequence[str]]]:
    """Conventions of curves, with the metrics measured with them; those with many small steps use `step` instead."""
    rise = curve_protocol("rise-28") if step == "8 rows" else curve_protocol("rise", step=step)
    return {
        "rise": (rise, ("faithfulness", "localisation")),
        "xplique": (curve_protocol("xplique"), ("faithfulness",)),
        "mutex": (curve_protocol("mutex"), ("faithfulness", "saco")),
        "tis": (curve_protocol("tis", step=step), ("faithfulness",)),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.directions", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--masks", required=True, help="what cl.open_images opens, with masks")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--images", type=int, default=24, help="of the 64 held-out photos; default %(default)s")
    parser.add_argument(
        "--free",
        type=int,
        default=0,
        help="photos for the free context, with rise and the prediction; default %(default)s",
    )
    parser.add_argument("--protocols", nargs="+", default=["rise", "xplique", "mutex", "tis"], help="default all")
    parser.add_argument("--targets", nargs="+", default=["prediction"], choices=["prediction", "logit"])
    parser.add_argument("--later", action="store_true", help="also measure Libra IxG+ from block 8")
    parser.add_argument("--step", default="8 rows", help="of rise and tis: '8 rows', or a number of pixels")
    parser.add_argument("--no-compute", dest="compute", action="store_false", help="only read finished trials")
    parser.add_argument("--out", type=Path, help="the table as Markdown; a CSV with all numbers is written next to it")
    parser.add_argument("--figures", type=Path, help="write the figure into this folder, under the table's name")
    args = parser.parse_args()
    photos = cl.open_images(args.masks)
    step = int(args.step) if args.step.isdecimal() else args.step
    chosen = protocols(step)
    results = {}
    for name in args.protocols:
        protocol, metrics = chosen[name]
        for target in args.targets if name == "rise" else ["prediction"]:
            rule = cl.logit("prediction") if target == "logit" else "prediction"
            groups = [((*METHODS, *(LATER if args.later else ())), held_out(photos, args.images))]
            if args.free and (name, target) == ("rise", "prediction"):
                groups.append((FREE, held_out(photos, args.free)))
            for methods, data in groups:
                results[name, target, methods is FREE] = cl.benchmark(
                    args.models,
                    list(methods),
                    data,
                    out=args.run,
                    metrics=metrics,
                    target=rule,
                    protocol=protocol,
                    batch_size=16,
                    compute=args.compute,
                )
    text = table(results, describe())
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
        frame = differences(results).drop(columns=["study", "data", "column"])
        frame.round(4).to_csv(args.out.with_suffix(".csv"), index=False)
    if args.figures is not None:
        figure(results, args.figures / (args.out or Path("directions")).stem)


if __name__ == "__main__":
    main()
