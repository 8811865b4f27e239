"""Figure of `experiments.planted`: what each method sees of planted evidence."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.style import COLOURS, new_figure, save_figure, style_axes

MOST = 8.0
"""Largest ratio on the axis; larger ones are drawn at the edge."""


def draw(found: pd.DataFrame, kinds: Mapping[str, str], path: Path) -> None:
    """Draw found and share per kind of evidence as heat maps, and the ratio of unequal patches next to them."""
    means = found.groupby(["method", "kind"])[["found", "share"]].mean()
    order = means.found.groupby("method").mean().sort_values(ascending=False, kind="stable").index
    figure = new_figure(12.5, 1.6 + 0.23 * len(order))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 0.85])
    for ax, column, label, title in (
        (left, "found", "share of scenes", "All planted patches found"),
        (middle, "share", "share of the map above its median", "On the planted patches"),
    ):
        frame = means[column].unstack().loc[order, list(kinds)].rename(columns=dict(kinds))
        if ax is middle:
            frame.index = [""] * len(frame)
        plot_heat(frame, ax, label=label, limits=(0.0, 1.0), number_format=".2f", title=title, xlabel="", ylabel="")
        ax.set_xticks(
            np.arange(len(kinds)) + 0.5, list(kinds.values()), rotation=40, ha="right", rotation_mode="anchor"
        )
    quartiles = (
        found.dropna(subset="ratio")
        .groupby("method")
        .ratio.quantile([0.25, 0.5, 0.75], interpolation="nearest")
        .unstack()
        .loc[order]
    )
    low, mid, high = (quartiles[at].replace([np.inf], MOST).clip(0, MOST) for at in (0.25, 0.5, 0.75))
    places = np.arange(len(order)) + 0.5  # like the heat maps' rows
    right.hlines(places, low, high, color="0.6", linewidth=2)
    right.plot(mid, places, "o", color=COLOURS[0], markersize=5, clip_on=False)
    right.axvline(2, color=COLOURS[1], linestyle="--", linewidth=1.2)
    right.set_yticks(places, [""] * len(order))
    right.set_ylim(len(order), 0)
    right.set_xlim(0, MOST)
    title = "Ratio of two\nunequal patches"
    style_axes(right, xlabel=f"ratio and quartiles, up to {MOST}\n(dashed: the truth)", title=title)
    save_figure(figure, path)
