"""All methods on real ImageNet weights and photos: insertion, deletion, AUPR and the pointing game.

    python -m experiments.real_weights --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --photos folder:PATH --masks masks:PATH --run runs/real --out docs/tables/real_weights.md

Photos give insertion and deletion, photos with masks the rest as well. Stop it at any time; the same command goes on.
Methods that take many passes get fewer of the same images, and only those with masks; n in the table says how many.
"""

import argparse
from pathlib import Path

import pandas as pd

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.bench.paper.published import METRICS
from caap_lab.variant import parse_variant

QUICK = (
    "caap",
    "E-CAAP=caap:attention=cached",
    "grad_cam",
    "rollout",
    "transformer_attribution",
    "tam",
    "ixg_plus",
    "libra_ixg_plus",
    "mutex",
    "input_x_gradient",
    "grad_cam_plus_plus",
    "attcat",
    "grad_sam",
    "gen_att",
    "legrad",
    "attn_lrp",
    "full_grad_plus",
)
SLOW = (
    "vit_cx",
    "simple_insertion",
    "simple_deletion",
    "integrated_gradients",
    "smoothgrad",
    "score_cam",
    "tis",
    "atman",
)
SLOWEST = ("rise:samples=1000", "mda")
SHOWN = {name: label for label, name in METRICS.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.real_weights", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens")
    parser.add_argument("--masks", required=True, help="the same, with masks")
    parser.add_argument(
        "--images",
        type=int,
        nargs=3,
        default=[16, 8, 4],
        metavar=("QUICK", "SLOW", "SLOWEST"),
        help="images; 0 leaves methods out",
    )
    parser.add_argument("--protocol", default="rise-28", help="of the curves; default %(default)s")
    parser.add_argument("--run", type=Path, default=Path("runs/real"), help="where results are kept")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    models = [parse_variant(text) for text in args.models]
    frames = []
    for methods, count in zip((QUICK, SLOW, SLOWEST), args.images, strict=True):
        if count == 0:
            continue
        for data in (args.photos, args.masks) if methods == QUICK else (args.masks,):
            result = cl.benchmark(
                models, methods, data, images=count, seed=0, protocol=args.protocol, out=args.run, progress=True
            )
            frames.append(result.summary().assign(data="masks" if data == args.masks else "photos"))
            for row in result.failed.itertuples():
                print(f"failed: {row.method} of {row.model} on {row.image}: {row.error}")
    text = table(pd.concat(frames), [model.label for model in models], result, args)
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def table(frame: pd.DataFrame, models: list[str], result: cl.BenchmarkResult, args: argparse.Namespace) -> str:
    """Markdown: one table a model, methods in the order of their InsDel on the photos with masks."""
    protocol = ", ".join(f"{k} {v}" for k, v in result.plan.protocol.to_dict().items() if k != "name")
    lines = [
        f"In percent, mean ± standard error (ddof 0). Explained class: the model's own prediction. Curves: protocol "
        f"{result.plan.protocol.name} ({protocol}). Images drawn with seed 0; n in the table; methods with "
        f"fewer images have the first of the same draw. {describe()}.",
    ]
    wanted = [("photos", m) for m in ("insertion", "deletion", "insdel")]
    wanted += [("masks", m) for m in ("insdel", "aupr1", "aupr0", "pointing")]
    for model in models:
        part = frame[frame["model"] == model].set_index(["data", "metric", "method"])
        order = part.loc[("masks", "insdel")]["mean"].sort_values(ascending=False).index
        heads = [f"{data}: {SHOWN[metric]}" for data, metric in wanted]
        lines += ["", f"**{model}**", "", f"| method | n | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
        for method in order:
            cells = []
            for data, metric in wanted:
                known = (data, metric, method) in part.index
                line = part.loc[(data, metric, method)] if known else None
                cells.append("" if line is None else f"{line['mean']:.1f} ± {line['se']:.1f}")
            n = int(part.loc[("masks", "insdel", method)]["n"])
            lines.append(f"| {method} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
