"""Figure of `experiments.prompts`: methods, attention over blocks, and CAAP over cutoffs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from caap_lab.plots.attention import REGION_STYLES, plot_regions
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import COLOURS, MARKERS, LevelStyle, level_styles, new_figure, save_figure
from caap_lab.statistics import standard_error
from experiments.prompts_maps import TARGETS, Measured
from experiments.prompts_tables import KINDS, MEAN, OTHER, REST

STYLES = level_styles(TARGETS)
CONTROL = "intra-object, the next photo's masks"
CUTOFFS = {
    "against the other object": LevelStyle(COLOURS[0], "-", MARKERS[0]),
    "against the rest of the photo": LevelStyle(COLOURS[4], "--", MARKERS[1]),
}


def draw(measured: Measured, path: Path) -> None:
    """Left: all methods with every target. Right: attention mass, and CAAP's areas, over the blocks."""
    figure = new_figure(10.5, max(6.8, 0.9 + 0.33 * len(measured.methods)))
    grid = figure.add_gridspec(2, 2, width_ratios=[1.1, 1])
    left = figure.add_subplot(grid[:, 0])
    order = sorted(measured.methods, key=lambda label: -float(measured.methods[label][:, MEAN, OTHER].mean()))
    frame = frame_of(
        {(label, target): measured.methods[label][:, t, OTHER] for label in order for t, target in enumerate(TARGETS)},
        ["method", "explained"],
    )
    plot_points(
        frame,
        "method",
        hue="explained",
        ax=left,
        styles=STYLES,
        horizontal=True,
        label="area under the ROC curve, asked object against the other",
        title=f"{len(measured.pairs)} photos, both prompts; 0.5 is chance",
    )
    left.axvline(0.5, color="0.5", linewidth=0.8)
    top, bottom = (figure.add_subplot(grid[row, 1]) for row in (0, 1))
    mass = measured.attention.over_layers("mass")
    control = measured.control.over_layers("mass").query("kind == 'intra-object'").assign(kind=CONTROL)
    mass = pd.concat([mass[mass["kind"].isin(KINDS)], control])
    mass = mass.assign(mean=100 * mass["mean"], se=100 * mass["se"])
    styles = {kind: REGION_STYLES[kind] for kind in KINDS} | {CONTROL: LevelStyle("0.5", (0, (1, 1)), "x")}
    plot_regions(
        mass, top, styles=styles, ylabel="attention mass (%)", title="attention of an object's patches", legend=False
    )
    legend_below(top)
    areas = {
        (cutoff, what): values[:, MEAN, area]
        for what, area in zip(CUTOFFS, (OTHER, REST), strict=True)
        for cutoff, values in measured.cutoffs.items()
    }
    plot_lines(
        frame_of(areas, ["cutoff", "area"]),
        "cutoff",
        hue="area",
        ax=bottom,
        styles=CUTOFFS,
        markers=True,
        whole_numbers=True,
        xlabel="cutoff of CAAP (blocks that are patched)",
        ylabel="area under the ROC curve",
        title="CAAP, contrast to the mean",
        legend=False,
    )
    legend_below(bottom)
    save_figure(figure, path)


def legend_below(ax: Axes) -> None:
    """A legend below the axis label, as lines fill the panel."""
    ax.legend(fontsize=8, frameon=False, handlelength=3, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))


def frame_of(values: Mapping[Any, np.ndarray], names: list[str]) -> pd.DataFrame:
    """Means over photos with their standard errors, one row per key."""
    rows = [
        {**dict(zip(names, key, strict=True)), "mean": float(of.mean()), "se": float(standard_error(of))}
        for key, of in values.items()
    ]
    return pd.DataFrame(rows)
