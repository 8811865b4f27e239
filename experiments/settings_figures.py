"""Figures of `experiments.settings`: metrics over settings, and rank correlations between their maps."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import COLOURS, MARKERS, LevelStyle, level_styles, new_figure, save_figure, shared_legend
from caap_lab.statistics import paired_statistics
from experiments.settings_sweeps import CUTOFFS, METRICS, Measured, cutoff_columns, name_of

AVERAGE = "average of the models"


def draw_ranks(models: Sequence[Measured], n_photos: int, path: Path) -> None:
    """Rank correlations: between blanks, and of every range with the default one; one row per model."""
    figure = new_figure(9.4, 3.9 * len(models))
    axes = figure.subplots(len(models), 2, squeeze=False)
    heat = partial(plot_heat, label=f"Spearman correlation, {n_photos} photos", limits=(0.0, 1.0), number_format=".2f")
    for (left, right), one in zip(axes, models, strict=True):
        labels = [name_of(label) for label in one.blank_labels]
        blanks = pd.DataFrame(one.blank_ranks, index=labels, columns=labels)
        title = f"{one.label}: maps of two blanks"
        heat(blanks, left, title=title)
        ranks = pd.DataFrame(one.range_labels, columns=["start", "cutoff"]).assign(
            rank=one.range_ranks[one.range_labels.index(one.default_range)]
        )
        ranges = ranks.pivot(index="start", columns="cutoff", values="rank")
        start, cutoff = one.default_range
        heat(
            ranges,
            right,
            highlight=(list(ranges.index).index(start), list(ranges.columns).index(cutoff)),
            xlabel="cutoff (block after the last patched one)",
            ylabel="start (first patched block)",
            title=f"{one.label}: a range and the default one (framed)",
        )
    save_small(figure, path)


def draw_metrics(models: Sequence[Measured], n_photos: Sequence[int], path: Path) -> None:
    """The paper's Figs 7, 4 and 5: cutoff, blank and neighbourhood."""
    styles = level_styles([one.label for one in models])
    styles[AVERAGE] = LevelStyle(COLOURS[2], "-", MARKERS[2])  # a separate colour for the average of all models
    figure = new_figure(10.5, 6.6)
    axes = figure.subplots(2, 3, width_ratios=[3, 4, 3])
    columns = cutoff_columns(models)
    average = np.mean(columns, axis=0)
    best = int(average.mean(axis=0).argmax())
    lines = {
        (0, "InsDel (%)"): {one.label: column for one, column in zip(models, columns, strict=True)},
        (1, f"InsDel less that at {CUTOFFS[best]}/12 (points)"): {AVERAGE: average - average[:, [best]]},
    }
    for (row, label), values in lines.items():
        ax = axes[row, 0]
        plot_lines(
            means(values, CUTOFFS),
            "setting",
            hue="model",
            ax=ax,
            styles=styles,
            markers=True,
            ylabel=label,
            legend=False,
        )
        ax.set_xticks(CUTOFFS)
        ax.set_xlabel("cutoff, twelfths of the blocks" if row == 1 else "")
    axes[0, 0].set_title(f"cutoff, {n_photos[0]} photos", fontsize=9)
    axes[1, 0].axhline(0, color="0.5", linewidth=0.8)
    for column, what in ((1, "blanks"), (2, "neighbourhoods")):
        for row, metric in enumerate(("insdel", "aupr1")):
            tables = {one.label: getattr(one, what) for one in models}
            values = {label: np.stack([of[metric] for of in table.values()], axis=1) for label, table in tables.items()}
            frame = means(values, list(getattr(models[0], what)))
            title = f"{what[:-1]}, {n_photos[1]} photos" if row == 0 else ""
            known = {one.label: styles[one.label] for one in models}
            label = f"{METRICS[metric]} (%)"
            ax = axes[row, column]
            plot_points(frame, "setting", hue="model", ax=ax, styles=known, label=label, title=title, legend=False)
            ax.tick_params(axis="x", labelbottom=row == 1)
    shared_legend(figure, columns=3, styles=styles)
    save_small(figure, path)


def means(values: Mapping[str, Float[np.ndarray, "image setting"]], settings: Sequence[object]) -> pd.DataFrame:
    """Mean over photos with its standard error: model, setting, mean, se."""
    rows = []
    for model, columns in values.items():
        for setting, column in zip(settings, columns.T, strict=True):
            statistics = paired_statistics(column)
            rows.append({"model": model, "setting": setting, "mean": statistics["mean"], "se": statistics["se"]})
    return pd.DataFrame(rows)


def save_small(figure: Figure, path: Path) -> None:
    """PNG and PDF, the PNG with a palette: a third of the size."""
    png, _ = save_figure(figure, path)
    with Image.open(png) as drawn:
        small = drawn.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(png, optimize=True)
