"""CAAP's settings on real weights: cutoff, blank, neighbourhood, and whether its results hang on blank and layer range.

    python -m experiments.settings --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --calibration folder:PATH --masks masks:PATH --images 48 48 48 12 --run runs/settings \
        --out docs/tables/settings.md --figures docs/images

The cutoff is chosen on the calibration photos, by the paper's rule: the highest insertion minus deletion, averaged over
the models. All else is measured on the last 64 of the photos with masks (drawn with seed 0), which
the choice never sees. Prints Markdown and draws two
figures. Stop it at any time; the same command goes on, and a larger --images adds photos to what is there.
"""

import argparse
from pathlib import Path

import caap_lab as cl
from caap_lab.variant import parse_variant
from experiments.settings_figures import draw_metrics, draw_ranks
from experiments.settings_sweeps import measure
from experiments.settings_tables import report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.settings", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--calibration", required=True, help="what cl.open_images opens, 100 photos or more")
    parser.add_argument("--masks", required=True, help="other photos, with masks")
    parser.add_argument(
        "--images",
        type=int,
        nargs=4,
        default=[48, 48, 48, 12],
        metavar=("CALIBRATION", "METRICS", "MAPS", "CHECKS"),
        help="photos that choose the cutoff; photos with masks that are measured; the same for maps alone, and for "
        "interactions",
    )
    parser.add_argument("--protocol", default="rise-28", help="of the curves; default %(default)s")
    parser.add_argument("--rows", type=int, help="change this many rows of pixels a step, whatever the protocol says")
    parser.add_argument("--run", type=Path, default=Path("runs/settings"), help="where results are kept")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figures into this folder")
    args = parser.parse_args()
    models = []
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        assert isinstance(model, cl.HookedViT)
        models.append(measure(spec.label, model, args))
    text = "\n".join(report(models, args)) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw_ranks(models, args.images[2], args.figures / "settings")
        draw_metrics(models, args.images[:2], args.figures / "settings_metrics")


if __name__ == "__main__":
    main()
