"""SaCo of all methods: are scores in proportion to effects? On the bundled scenes, and on real weights and photos.

    python -m experiments.saco --scenes 40 --out docs/tables/saco.md \
        --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] --photos folder:PATH --images 32 8 2

Without `--models` the table has only the bundled scenes. The same command resumes a stopped run. On photos, methods
that need many passes get fewer of the same images; n in the table is their number. "random" gives each patch a random
score, which ignores the model.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.metrics.saco import GROUPS
from caap_lab.variant import parse_variant
from experiments.controls import register_random

E_CAAP = "E-CAAP=caap:attention=cached"
QUICK, SLOW = 80, 1100
"""Largest number of passes per map (ViT-tiny, 224 pixels) of quick and of slow methods; the rest are the slowest."""
METRICS = ["saco", "faithfulness"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.saco", description=__doc__)
    parser.add_argument("--model", default="demo", help="a bundled model; default %(default)s")
    parser.add_argument("--scenes", type=int, default=40, help="bundled scenes; default %(default)s")
    parser.add_argument("--models", nargs="+", default=[], metavar="LABEL=NAME:key=value", help="real weights")
    parser.add_argument("--photos", help="what cl.open_images opens")
    parser.add_argument(
        "--images",
        type=int,
        nargs=3,
        default=[16, 4, 1],
        metavar=("QUICK", "SLOW", "SLOWEST"),
        help="number of photos; 0 skips the methods",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/saco"), help="folder of the results")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    methods = [E_CAAP, *(name for name, method in METHODS.items() if "vit" in method.models)]
    register_random()
    options: dict[str, Any] = {"seed": 0, "progress": True, "protocol": "rise-28"}
    text = _note()
    scenes = cl.benchmark(
        args.model,
        [*methods, "random"],
        "demo:single",
        images=args.scenes,
        metrics=METRICS,
        out=args.run / "demo",
        **options,
    )
    text += _section(f"Bundled scenes, {args.model}", scenes.summary(), METRICS)
    if args.models:
        frames = []
        size = ModelSize("vit", (224, 224), (14, 14), 192)
        passes = {name: METHODS[parse_variant(name).name].passes(size) for name in methods}
        kinds = [
            [*(name for name in methods if passes[name] <= QUICK), "random"],
            [name for name in methods if QUICK < passes[name] <= SLOW],
            [name for name in methods if passes[name] > SLOW],
        ]
        for some, count in zip(kinds, args.images, strict=True):
            if count and some:
                result = cl.benchmark(
                    args.models,
                    some,
                    args.photos,
                    images=count,
                    metrics=METRICS[:1],
                    out=args.run / "photos",
                    **options,
                )
                frames.append(result.summary())
                for row in result.failed.itertuples():
                    print(f"failed: {row.method} of {row.model} on {row.image}: {row.error}")
        for model in (parse_variant(text).label for text in args.models):
            frame = pd.concat(frames)
            text += _section(f"Photos, {model}", frame[frame["model"] == model], METRICS[:1])
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def _note() -> str:
    return (
        f"SaCo with {GROUPS} groups of pixels, bilinear maps, groups replaced by the image's mean colour; -1 to 1. "
        "Mean ± standard error over images (ddof 0), methods in its order. Explained class: the model's own "
        "prediction. InsDel in percent, protocol rise-28. Images drawn with seed 0; methods with fewer have the first "
        f"of the same draw; a constant map has no SaCo. {describe()}.\n"
    )


def _section(title: str, frame: pd.DataFrame, metrics: list[str]) -> str:
    """One table, with methods sorted by SaCo."""
    columns = {"saco": "SaCo", "insdel": "InsDel"} if len(metrics) > 1 else {"saco": "SaCo"}
    lines = {name: part.set_index("method") for name, part in frame.groupby("metric") if name in columns}
    order = lines["saco"]["mean"].sort_values(ascending=False).index
    rows = [f"| method | n | {' | '.join(columns.values())} |", f"|---|---|{'---|' * len(columns)}"]
    for method in order:
        cells = [
            f"{lines[name].loc[method, 'mean']:.{digits}f} ± {lines[name].loc[method, 'se']:.{digits}f}"
            for name, digits in zip(columns, (3, 1), strict=False)
        ]
        rows.append(f"| {method} | {int(lines['saco'].loc[method, 'n'])} | {' | '.join(cells)} |")
    text = f"\n**{title}**\n\n" + "\n".join(rows) + "\n"
    if len(columns) > 1:
        shared = lines["saco"]["mean"].corr(lines["insdel"]["mean"].reindex(order), method="spearman")
        text += f"\nRank correlation (Spearman) of the methods' means of SaCo and InsDel: {shared:.2f}.\n"
    return text


if __name__ == "__main__":
    main()
