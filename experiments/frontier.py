"""Cost of each setting of CAAP, and distance of its maps from the exact ones, on real weights and photos.

    python -m experiments.frontier --models DeiT-tiny=deit_tiny_patch16_224:checkpoint=PATH \
        "ViT-tiny=vit_tiny_patch16_224:checkpoint=PATH,mean=[0.5,0.5,0.5],std=[0.5,0.5,0.5]" \
        --photos DIR --out docs/tables/frontier.md --figures docs/images

For every setting and cutoff: the cost in forward passes of the same model, counted and timed; the Spearman correlation
with the exact map; and the change of insertion minus deletion (InsDel). The class explained is the model's own
prediction. Writes the Markdown table, all values as CSV next to it, and one figure as PNG and PDF.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from scipy.stats import spearmanr
from tqdm import tqdm

import caap_lab as cl
from benchmarks.counting import operations, timed
from benchmarks.machine import describe
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import level_styles, new_figure, save_figure, shared_legend, style_axes
from caap_lab.variant import parse_variant
from experiments.photos import every_nth, one

SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {},
    "E-CAAP": {"attention": "cached"},
    "interpolated tail": {"tail": "interpolated"},
    "E-CAAP, interpolated tail": {"attention": "cached", "tail": "interpolated"},
    "shared tail": {"tail": "shared"},
    "E-CAAP, shared tail": {"attention": "cached", "tail": "shared"},
}
STYLES = level_styles(list(SETTINGS), highlighted="exact")
CUTOFFS = (2, 4, 6, 8)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.frontier", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, type=Path, help="folder of photos; every n-th by name is used")
    parser.add_argument("--count", type=int, default=16, help="photos; default %(default)s")
    parser.add_argument(
        "--curves", type=int, default=8, help="number of photos whose InsDel is measured; default %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed maps of each setting; default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/frontier.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    photos = every_nth(args.photos, args.count)
    frames = []
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        assert isinstance(model, cl.HookedViT)
        frames.append(measure(model, photos, args.curves, args.repeats).assign(model=spec.label))
    frame = pd.concat(frames, ignore_index=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frame.round(5).to_csv(args.out.with_suffix(".csv"), index=False)
    text = (
        f"{table(frame)}\n\n{len(photos)} photos of {args.photos.name} (every n-th by name; InsDel on {args.curves}), "
        "target the model's prediction, white blank, 3 x 3 neighbourhood, fp32. Forwards, timed: medians of "
        f"{args.repeats}. Spearman with the exact map: mean over photos (lowest). InsDel: mean change against the "
        f"exact map in points of 100, with its standard error; protocol rise-28. {describe()}.\n"
    )
    args.out.write_text(text)
    print(text)
    args.figures.mkdir(parents=True, exist_ok=True)
    draw(frame, args.figures / "frontier")


def measure(model: cl.HookedViT, photos: list[Path], curves: int, repeats: int) -> pd.DataFrame:
    """One row per cutoff, setting and photo; the cost is repeated in each."""
    rows: list[dict[str, Any]] = []
    steps = [(cutoff, setting) for cutoff in CUTOFFS for setting in SETTINGS]
    first = model.preprocess(photos[0])
    costs = {
        step: _cost(model, first, {"cutoff": step[0], **SETTINGS[step[1]]}, repeats)
        for step in tqdm(steps, unit="cost")
    }
    for number, photo in enumerate(tqdm(photos, unit="photo")):
        image = model.preprocess(photo)
        for cutoff in CUTOFFS:
            exact = one(cl.caap(model, image, cutoff=cutoff))
            maps = {
                setting: one(cl.caap(model, image, exact.target, cutoff=cutoff, **options))
                for setting, options in SETTINGS.items()
            }
            insdel = [np.nan] * len(maps)
            if number < curves:
                found = cl.insertion_deletion(model, image, list(maps.values()), protocol="rise-28", progress=False)
                assert isinstance(found, list)
                insdel = [curve.insdel for curve in found]
            for (setting, m), value in zip(maps.items(), insdel, strict=True):
                counted, timed = costs[cutoff, setting]
                rank = spearmanr(exact.scores.flatten(), m.scores.flatten()).statistic
                rows.append(
                    {
                        "image": photo.name,
                        "cutoff": cutoff,
                        "setting": setting,
                        "counted": counted,
                        "timed": timed,
                        "spearman": rank,
                        "insdel_change": 100 * (value - insdel[0]),
                    }
                )
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame) -> str:
    """Markdown: one row per model, cutoff and setting."""
    lines = [
        "| model | cutoff | setting | forwards, counted | forwards, timed | Spearman | InsDel |",
        "|---|---|---|---|---|---|---|",
    ]
    for (model, cutoff, setting), part in frame.groupby(["model", "cutoff", "setting"], sort=False):
        change = part["insdel_change"].dropna()
        error = change.std(ddof=0) / max(1, len(change)) ** 0.5
        moved = "0" if setting == "exact" else f"{change.mean():+.2f} ± {error:.2f}"
        lines.append(
            f"| {model} | {cutoff} | {setting} | {part['counted'].iloc[0]:.2f} | {part['timed'].iloc[0]:.2f} "
            f"| {part['spearman'].mean():.3f} ({part['spearman'].min():.2f}) | {moved} |"
        )
    return "\n".join(lines)


def draw(frame: pd.DataFrame, path: Path) -> list[Path]:
    """Draw Spearman and the change of InsDel over the counted cost: one line per setting, one point per cutoff."""
    models = list(frame["model"].unique())
    figure = new_figure(4.4 * len(models), 6.4)
    axes = figure.subplots(2, len(models), squeeze=False, sharex=True, sharey="row")
    for column, model in enumerate(models):
        part = frame[frame["model"] == model]
        _lines(axes[0, column], part, "spearman")
        _lines(axes[1, column], part, "insdel_change")
        style_axes(axes[0, column], xlabel="", ylabel="Spearman with the exact map", title=model)
        style_axes(axes[1, column], xlabel="forward passes, counted", ylabel="change of InsDel, points")
    for ax in axes[0]:
        ax.axhline(0.98, color="0.6", lw=0.8, ls=":")
    for ax in axes.flat:
        ax.label_outer()
    shared_legend(figure, columns=3)
    return save_figure(figure, path)


def _lines(ax: Axes, frame: pd.DataFrame, value: str) -> None:
    groups = frame.groupby(["setting", "cutoff"], sort=False)
    means = groups[value].agg(["mean", "count"]).assign(std=groups[value].std(ddof=0), cost=groups["counted"].first())
    means = means.assign(se=means["std"] / means["count"] ** 0.5).reset_index()
    plot_lines(means, "cost", hue="setting", ax=ax, styles=STYLES, markers=True, legend=False)
    if value == "spearman":
        for setting, offset, side in (("exact", (0, 5), "center"), ("shared tail", (5, -3), "left")):
            for point in means[means["setting"] == setting].itertuples():
                ax.annotate(
                    str(point.cutoff), (point.cost, point.mean), offset, textcoords="offset points",
                    ha=side, fontsize=7, color=STYLES[setting].colour,
                )  # fmt: skip


def _cost(model: cl.HookedViT, image: Any, options: dict[str, Any], repeats: int) -> tuple[float, float]:
    """Forward passes, counted and timed; each timed map is compared with three forward passes."""

    @torch.no_grad()
    def forward() -> None:
        model(image)

    def run() -> None:
        cl.caap(model, image, **options)

    run()  # caches the blank, which is not part of a map's cost
    counted = operations(model, run) / operations(model, forward)
    ratios = []
    for _ in range(repeats):
        near = statistics.median(timed(forward) for _ in range(3))
        ratios.append(timed(run) / near)
    return counted, statistics.median(ratios)


if __name__ == "__main__":
    main()
