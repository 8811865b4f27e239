"""CAAP's settings on real weights: cutoff, blank, neighbourhood, and whether results depend on blank and layer range.

    python -m experiments.settings --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --calibration folder:PATH --masks masks:PATH --images 48 48 48 12 --run runs/settings \
        --out docs/tables/settings.md --figures docs/images

The cutoff is chosen on the calibration photos, by the paper's rule: the highest insertion minus deletion, averaged over
the models. Everything else is measured on the last 64 of the photos with masks (drawn with seed 0), on which nothing is
chosen. Prints Markdown and draws two figures. The same command resumes a stopped run, and a larger --images adds
photos.
"""

import argparse
from pathlib import Path

import caap_lab as cl
from caap_lab.variant import parse_variant
from experiments.settings_figures import draw_metrics, draw_ranks
from experiments.settings_sweeps import measure
from experiments.settings_tables import report


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.settings", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--calibration", required=True, help="what cl.open_images opens, at least 100 photos")
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
    parser.add_argument("--protocol", default="rise-28", help="protocol of the curves; default %(default)s")
    parser.add_argument("--rows", type=int, help="rows of pixels changed per step, instead of the protocol's")
    parser.add_argument("--run", type=Path, default=Path("runs/settings"), help="folder of the results")
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
