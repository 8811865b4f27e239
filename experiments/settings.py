"""CAAP's settings on real weights: cutoff, blank, neighbourhood, and whether its results hang on blank and layer range.

    python -m experiments.settings --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --calibration folder:PATH --masks masks:PATH --images 8 6 8 --run runs/settings \
        --out docs/tables/settings.md --figures docs/images

The cutoff is chosen on the calibration photos, by the paper's rule: the highest insertion minus deletion, averaged over
the models. All else is measured on the photos with masks, which the choice never sees. Prints Markdown and draws two
figures. Stop it at any time; the same command goes on, and a larger --images adds photos to what is there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image
from tqdm import tqdm

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.bench.published import METRICS as PAPER_METRICS
from caap_lab.engine.blanks import BLANKS, Blank
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.metrics.catalogue import metric_column
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.plots.style import COLOUR_MAP, COLOURS, MARKERS, new_figure, save_figure, style_axes
from caap_lab.statistics import paired_statistics
from caap_lab.variant import parse_variant

CUTOFFS = (2, 4, 5, 6, 7, 8, 9, 10, 12)
"""In twelfths of the blocks, as models may differ in depth."""
RANGES = ((0, 4), (0, 8), (0, 12), (4, 8), (4, 12), (8, 12))
"""Ranges whose metrics are measured, in twelfths: every third of the blocks and what they join to."""
BASELINES = ("grad_cam", "rollout")
METRICS = {name: label for label, name in PAPER_METRICS.items()}
MAIN = ("insdel", "aupr1", "aupr0", "pointing")
N_MEAN, N_CLASS, N_POOL = 32, 8, 64
"""Photos behind the mean and behind the class-averaged activations; those of each set that the latter come from."""
BATCH = 16
"""Faster than more on one thread, where a batch has to fit the processor's cache."""

Values = Float[np.ndarray, "image"]
Table = dict[str, dict[str, Values]]
"""Label of a setting to metric to a value of each image."""


@dataclass(frozen=True, eq=False)
class Found:
    """All that was measured of one model."""

    label: str
    cutoffs: cl.CaapSweep
    neighbourhoods: Table
    blanks: Table
    ranges: Table
    baselines: Table
    blank_labels: list[str]
    blank_ranks: Float[np.ndarray, "blank blank"]
    range_labels: list[tuple[int, int]]
    range_ranks: Float[np.ndarray, "range range"]
    default_range: tuple[int, int]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.settings", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--calibration", required=True, help="what cl.open_images opens, 100 photos or more")
    parser.add_argument("--masks", required=True, help="other photos, with masks")
    parser.add_argument(
        "--images",
        type=int,
        nargs=3,
        default=[8, 6, 8],
        metavar=("CALIBRATION", "METRICS", "MAPS"),
        help="photos that choose the cutoff; photos with masks that are measured; the same for maps alone",
    )
    parser.add_argument("--protocol", default="rise-28", help="of the curves; default %(default)s")
    parser.add_argument("--rows", type=int, help="change this many rows of pixels a step, whatever the protocol says")
    parser.add_argument("--run", type=Path, default=Path("runs/settings"), help="where results are kept")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figures into this folder")
    args = parser.parse_args()
    found = []
    for spec in map(parse_variant, args.models):
        model = cl.load_model(spec.name, **spec.options)
        assert isinstance(model, cl.HookedViT)
        found.append(measure(spec.label, model, args))
    text = "\n".join(report(found, args)) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw_ranks(found, args.images[2], args.figures / "settings")
        draw_metrics(found, args.images[:2], args.figures / "settings_metrics")


def measure(label: str, model: cl.HookedViT, args: argparse.Namespace) -> Found:
    """All sweeps of one model."""
    n_calibration, n_metrics, n_maps = args.images
    depth = model.n_layers
    photos, masked = cl.open_images(args.calibration), cl.open_images(args.masks)
    protocol = protocol_of(args, model.image_size[1])
    kept: Any = {"out": args.run, "protocol": protocol, "progress": False, "batch_size": BATCH}

    counts = [round(share * depth / 12) for share in CUTOFFS]
    cutoffs = cl.sweep_cutoffs(
        model, photos.sample(n_calibration, seed=0), cutoffs=counts, metrics=("faithfulness",), **kept
    )
    images = masked.sample(n_metrics, seed=0)
    neighbourhoods = cl.sweep_neighbourhoods(model, images, **kept)
    thirds = [(start * depth // 12, cutoff * depth // 12) for start, cutoff in RANGES]
    ranges = cl.sweep_ranges(model, images, ranges=thirds, **kept)
    choose = BlankChooser(model, photos, masked)
    blanks = [
        cl.sweep_blanks(model, images[i : i + 1], blanks=choose(images[i].image), **kept)
        for i in tqdm(range(len(images)), desc=f"{label}, blanks")
    ]
    names = [sample.name for sample in images]
    result = cl.benchmark(model, BASELINES, images, **kept)
    frame = result.to_dataframe().set_index(["method", "image"]).sort_index()
    baselines = {m: {k: frame.loc[m].loc[names][k].to_numpy(float) for k in METRICS} for m in BASELINES}

    more = masked.sample(n_maps, seed=0)
    alone: Any = {**kept, "metrics": ()}
    step = max(1, depth // 6)  # every second of 12 blocks: enough to see the course, at a quarter of the cost
    pairs = list(combinations(range(0, depth + 1, step), 2))
    range_maps = cl.sweep_ranges(model, more, ranges=pairs, **alone)
    blank_maps = [
        cl.sweep_blanks(model, more[i : i + 1], blanks=choose(more[i].image), **alone)
        for i in tqdm(range(len(more)), desc=f"{label}, maps")
    ]
    return Found(
        label,
        cutoffs,
        table_of([neighbourhoods]),
        table_of(blanks),
        table_of([ranges]),
        baselines,
        [str(name) for name in blank_maps[0].labels],
        np.mean([one.rank_correlation().to_numpy() for one in blank_maps], axis=0),
        pairs,
        range_maps.rank_correlation().to_numpy(),
        (0, cutoff_blocks(None, depth)),
    )


def protocol_of(args: argparse.Namespace, width: int) -> CurveProtocol:
    """The protocol of the curves, with its steps as asked for."""
    protocol = curve_protocol(args.protocol)
    if args.rows is None:
        return protocol
    return replace(protocol, name=f"{protocol.name}, {args.rows} rows of pixels a step", step=args.rows * width)


def table_of(sweeps: Sequence[cl.CaapSweep]) -> Table:
    """Values by setting and metric; sweeps of an image each are joined."""
    return {
        name_of(label): {metric: np.concatenate([one.values(metric)[:, i] for one in sweeps]) for metric in METRICS}
        for i, label in enumerate(sweeps[0].labels)
    }


def name_of(label: object) -> str:
    """A setting's label as the tables write it: the first and last block of a range, counted from 0."""
    return f"blocks {label[0]} to {label[1] - 1}" if isinstance(label, tuple) else str(label).replace("_", " ")


def is_plain(blank: str) -> bool:
    """False for blanks with content of their own, and for the one that no picture could give."""
    return blank.replace("_", " ") != "zero activations" and "photo" not in blank


class BlankChooser:
    """All blanks for an image; the class-averaged one depends on the class that is explained.

    Photos behind blanks come from the end of a set's draw and measured photos from its start, so that no photo is its
    own blank and more photos change no blank.
    """

    def __init__(self, model: cl.HookedViT, photos: cl.ImageSet, masked: cl.ImageSet) -> None:
        """Runs the pool of photos once."""
        self.model = model
        draw = [sample.image for sample in photos.sample(len(photos), seed=0)[-N_POOL:]]
        self.shared: dict[str, Blank] = {name: name for name in BLANKS}
        self.shared["mean activations"] = cl.blanks.mean_activations(draw[:N_MEAN])
        self.shared |= {"a photo": draw[-1], "another photo": draw[-2]}
        self.pool = draw + [sample.image for sample in masked.sample(len(masked), seed=0)[-N_POOL:]]
        self.scores = self.score(self.pool)

    def __call__(self, image: Image.Image) -> dict[str, Blank]:
        """Label to blank: the photos of the pool that the model gives the image's class the highest probability."""
        target = int(self.score([image]).argmax())
        nearest = self.scores[:, target].topk(N_CLASS).indices.tolist()
        return {**self.shared, "class average": cl.blanks.mean_activations([self.pool[i] for i in nearest])}

    @torch.no_grad()
    def score(self, images: Sequence[Image.Image]) -> Float[torch.Tensor, "image class"]:
        """Log-probabilities."""
        return torch.cat([self.model(self.model.preprocess(image)).log_softmax(dim=-1) for image in images])


def report(found: Sequence[Found], args: argparse.Namespace) -> list[str]:
    """All tables as Markdown."""
    n_calibration, n_metrics, n_maps = args.images
    lines = [
        "In percent, mean ± standard error over photos (ddof 0). Explained class: the model's own prediction. Curves: "
        f"protocol {protocol_of(args, 1).name}. Photos: {n_calibration} for calibration; {n_metrics} others, with "
        f"masks, for metrics; {n_maps} for maps alone, the same {min(n_metrics, n_maps)} first. {describe()}.",
        "",
        "### Cutoff",
        "",
        *cutoff_table(found),
    ]
    for title, head, what in (
        ("Blank", "blank", "blanks"),
        ("Neighbourhood", "neighbourhood", "neighbourhoods"),
        ("Range of patched blocks", "range", "ranges"),
    ):
        lines += ["", f"### {title}"]
        for one in found:
            lines += ["", f"**{one.label}**", "", *metric_table(head, getattr(one, what))]
    lines += ["", "### Rank correlation of maps", "", *rank_table(found)]
    for title, about, table in (
        (
            "Spread",
            "Highest less lowest mean ± standard error of this difference, photo by photo; p is how often settings "
            "that are exchanged at random within each photo spread as far.",
            spread_table,
        ),
        (
            "Other methods",
            "CAAP at its defaults less another method on the same photos, and with how many of CAAP's settings its "
            "mean is the better one.",
            rival_table,
        ),
    ):
        lines += ["", f"### {title}", "", about]
        for one in found:
            lines += ["", f"**{one.label}**", "", *table(one)]
    return lines


def cutoff_columns(found: Sequence[Found]) -> list[Float[np.ndarray, "image cutoff"]]:
    """InsDel of each model at `CUTOFFS`."""
    columns = []
    for one in found:
        counts = [round(share * one.cutoffs.model.n_layers / 12) for share in CUTOFFS]
        columns.append(one.cutoffs.values("insdel")[:, [one.cutoffs.labels.index(count) for count in counts]])
    return columns


def cutoff_table(found: Sequence[Found]) -> list[str]:
    """InsDel over cutoffs; the best average, and how far each other one is from it, photo by photo."""
    columns = cutoff_columns(found)
    average = np.mean(columns, axis=0)
    best = int(average.mean(axis=0).argmax())
    lines = [
        f"| cutoff, share of blocks | {' | '.join(one.label for one in found)} | average | average less the best |",
        "|---" * (len(found) + 3) + "|",
    ]
    for i, share in enumerate(CUTOFFS):
        cells = [percent(values[:, i]) for values in [*columns, average]]
        last = "best" if i == best else percent(average[:, i] - average[:, best])
        lines.append(f"| {share}/12 | {' | '.join(cells)} | {last} |")
    return [*lines, "", f"Chosen by the paper's rule: {CUTOFFS[best]}/12 of the blocks."]


def metric_table(head: str, table: Table) -> list[str]:
    """One row a setting."""
    lines = [f"| {head} | {' | '.join(METRICS[metric] for metric in MAIN)} |", "|---" * (len(MAIN) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(percent(row[m]) for m in MAIN)} |" for name, row in table.items()]


def rank_table(found: Sequence[Found]) -> list[str]:
    """Spearman over pairs of settings."""
    lines = [
        "Spearman correlation between the maps of two settings, mean over photos; then over all pairs of settings. "
        "Plain blanks are all but zero activations and the photos.",
        "",
        "| model | settings | lowest | median | highest | lowest pair |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        plain = [i for i, name in enumerate(one.blank_labels) if is_plain(name)]
        several: list[tuple[str, list[str], np.ndarray]] = [
            ("blanks", one.blank_labels, one.blank_ranks),
            ("plain blanks", [one.blank_labels[i] for i in plain], one.blank_ranks[np.ix_(plain, plain)]),
            ("ranges", [name_of(label) for label in one.range_labels], one.range_ranks),
        ]
        for what, labels, ranks in several:
            rows, cols = np.triu_indices(len(labels), 1)
            values = ranks[rows, cols]
            low = int(values.argmin())
            pair = f"{name_of(labels[rows[low]])}, {name_of(labels[cols[low]])}"
            numbers = " | ".join(f"{v:.2f}" for v in (values.min(), np.median(values), values.max()))
            lines.append(f"| {one.label} | {len(labels)} {what} | {numbers} | {pair} |")
    return lines


def spread_table(one: Found) -> list[str]:
    """Highest minus lowest mean over blanks and over ranges."""
    plain = {name: row for name, row in one.blanks.items() if is_plain(name)}
    several = {"blanks": one.blanks, "plain blanks": plain, "ranges": one.ranges}
    lines = [f"| metric | {' | '.join(f'over {what} | highest; lowest' for what in several)} |"]
    lines += ["|---" * (2 * len(several) + 1) + "|"]
    for metric, name in METRICS.items():
        cells = []
        for table in several.values():
            values = np.stack([row[metric] for row in table.values()], axis=1)
            order = np.nanmean(values, axis=0).argsort()
            high, low = order[-1], order[0]
            cells += [
                f"{percent(values[:, high] - values[:, low])} ({chance(values)})",
                f"{list(table)[high]}; {list(table)[low]}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def rival_table(one: Found) -> list[str]:
    """What separates CAAP from other methods, and with how many settings of CAAP its mean is the better one."""
    lines = [
        f"| metric | {' | '.join(f'less {name_of(m)} | better with' for m in BASELINES)} |",
        "|---" * (2 * len(BASELINES) + 1) + "|",
    ]
    for metric, name in METRICS.items():
        sign = -1 if metric_column(metric).better == "lower" else 1
        cells = []
        for method in BASELINES:
            other = one.baselines[method][metric]
            wins = [
                f"{sum(sign * np.nanmean(row[metric] - other) > 0 for row in table.values())} of {len(table)} {what}"
                for what, table in (("blanks", one.blanks), ("ranges", one.ranges))
            ]
            cells += [percent(one.blanks["white"][metric] - other), ", ".join(wins)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def chance(values: Float[np.ndarray, "image setting"], shuffles: int = 2000) -> str:
    """How often settings that are exchanged at random within each photo spread as far: the highest of many always
    lies above the lowest, if by noise alone."""
    values = values[np.isfinite(values).all(axis=1)]
    random = np.random.Generator(np.random.PCG64(0))
    found = np.ptp(values.mean(axis=0))
    others = [np.ptp(random.permuted(values, axis=1).mean(axis=0)) for _ in range(shuffles)]
    p = float(np.mean(np.array(others) >= found - 1e-12))
    return "p < 0.01" if p < 0.01 else f"p {p:.2f}"


def percent(values: Values) -> str:
    """Mean and standard error."""
    found = paired_statistics(values)
    return f"{found['mean']:.1f} ± {found['se']:.1f}"


def draw_ranks(found: Sequence[Found], n_photos: int, path: Path) -> None:
    """Rank correlations: between blanks, and of every range with the default one; a row a model."""
    figure = new_figure(8.4, 3.9 * len(found))
    shown: AxesImage | None = None
    axes = figure.subplots(len(found), 2, squeeze=False)
    for row, one in zip(axes, found, strict=True):
        labels = [name_of(label) for label in one.blank_labels]
        shown = heat(row[0], one.blank_ranks, labels, labels)
        row[0].set_title(f"{one.label}: maps of two blanks", fontsize=9)
        place = one.range_labels.index(one.default_range)
        starts, cutoffs = (sorted({pair[i] for pair in one.range_labels}) for i in (0, 1))
        cells = np.full((len(starts), len(cutoffs)), np.nan)
        for (start, cutoff), value in zip(one.range_labels, one.range_ranks[place], strict=True):
            cells[starts.index(start), cutoffs.index(cutoff)] = value
        heat(row[1], cells, starts, cutoffs)
        corner = (cutoffs.index(one.default_range[1]) - 0.5, starts.index(one.default_range[0]) - 0.5)
        row[1].add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=2.5))
        row[1].set_title(f"{one.label}: a range and the default one (framed)", fontsize=9)
        row[1].set_xlabel("cutoff (block after the last patched one)", fontsize=8)
        row[1].set_ylabel("start (first patched block)", fontsize=8)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, shrink=0.6)
    bar.set_label(f"Spearman correlation, mean over {n_photos} photos", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save_small(figure, path)


def save_small(figure: Figure, path: Path) -> None:
    """PNG and PDF, the PNG with a palette: a third of the size."""
    png, _ = save_figure(figure, path)
    with Image.open(png) as drawn:
        small = drawn.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(png, optimize=True)


def draw_metrics(found: Sequence[Found], n_photos: Sequence[int], path: Path) -> None:
    """The paper's Figs 7, 4 and 5: cutoff, blank and neighbourhood."""
    figure = new_figure(10.5, 6.6)
    axes = figure.subplots(2, 3, width_ratios=[3, 4, 3])
    columns = cutoff_columns(found)
    average = np.mean(columns, axis=0)
    best = int(average.mean(axis=0).argmax())
    lines = {one.label: column for one, column in zip(found, columns, strict=True)}
    points(axes[0, 0], lines, CUTOFFS, joined=True)
    points(axes[1, 0], {"average of the models": average - average[:, [best]]}, CUTOFFS, joined=True)
    axes[1, 0].axhline(0, color="0.5", linewidth=0.8)
    axes[0, 0].set_title(f"cutoff, {n_photos[0]} photos", fontsize=9)
    axes[0, 0].set_ylabel("InsDel (%)")
    axes[1, 0].set_ylabel(f"InsDel less that at {CUTOFFS[best]}/12 (points)")
    axes[1, 0].set_xlabel("cutoff, twelfths of the blocks")
    for column, what in ((1, "blanks"), (2, "neighbourhoods")):
        labels = list(getattr(found[0], what))
        for row, metric in enumerate(("insdel", "aupr1")):
            several = {
                one.label: np.stack([values[metric] for values in getattr(one, what).values()], axis=1) for one in found
            }
            points(axes[row, column], several, labels)
            axes[row, column].set_ylabel(f"{METRICS[metric]} (%)")
        axes[0, column].set_title(f"{what[:-1]}, {n_photos[1]} photos", fontsize=9)
    for ax in axes[0]:
        ax.tick_params(axis="x", labelbottom=False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    last, name = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles + last, names + name, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save_small(figure, path)


def points(
    ax: Axes,
    lines: dict[str, Float[np.ndarray, "image setting"]],
    labels: Sequence[object],
    joined: bool = False,
) -> None:
    """Means over photos with standard errors; named settings side by side, numbers over their axis."""
    style_axes(ax)
    numbers = np.array(labels if joined else range(len(labels)), dtype=float)
    for index, (name, values) in enumerate(lines.items()):
        told = [paired_statistics(column) for column in values.T]
        shift = (index - (len(lines) - 1) / 2) * 0.22
        place = index if len(lines) > 1 else 2  # a colour of its own for what stands for all models
        ax.errorbar(
            numbers + shift,
            [one["mean"] for one in told],
            [one["se"] for one in told],
            fmt=MARKERS[place] + ("-" if joined else ""),
            linewidth=1,
            markersize=4,
            capsize=2,
            color=COLOURS[place],
            label=name,
        )
    if joined:
        ax.set_xticks(numbers)
    else:
        ax.set_xticks(numbers, [str(label) for label in labels], fontsize=7, rotation=40, ha="right")
        for tick in ax.get_xticklabels():
            tick.set_rotation_mode("anchor")


def heat(ax: Axes, cells: np.ndarray, rows: Sequence[object], cols: Sequence[object]) -> AxesImage:
    """A heat map with its numbers, dark on light cells and the other way round."""
    shown = ax.imshow(cells, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        if np.isfinite(value):
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color="black" if value > 0.6 else "white"
            )
    several_words = any(len(str(col)) > 3 for col in cols)
    ax.set_xticks(range(len(cols)), [str(col) for col in cols], fontsize=7)
    if several_words:
        ax.tick_params(axis="x", labelrotation=40)
        for tick in ax.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), [str(row) for row in rows], fontsize=7)
    return shown


if __name__ == "__main__":
    main()
