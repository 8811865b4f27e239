"""Figure of `experiments.shapley`: the methods' rank correlations with Shapley values."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from caap_lab.plots.style import COLOURS, MARKERS, new_figure, save_figure, style_axes

COLUMNS = {"white": "blank white", "mean": "blank mean"}


def draw(found: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw one panel per model: methods sorted by correlation, a mark and its standard error per blank."""
    methods = max((rows.method.nunique() for rows in found.values()), default=1)
    figure = new_figure(6.8 * len(found), 1.2 + 0.19 * methods)
    for ax, (label, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        means = rows.groupby("method")[list(COLUMNS)].mean()
        errors = rows.groupby("method")[list(COLUMNS)].std(ddof=0).div(rows.groupby("method").size() ** 0.5, axis=0)
        order = means.mean(axis=1).sort_values().index
        places = range(len(order))
        for shift, (blank, name) in enumerate(COLUMNS.items()):
            ax.errorbar(
                means.loc[order, blank],
                [place + 0.16 * (1 - 2 * shift) for place in places],
                xerr=errors.loc[order, blank],
                fmt=MARKERS[shift],
                color=COLOURS[shift],
                markersize=4,
                linewidth=1,
                label=name,
            )
        names = [f"{name} " if name.startswith("Shapley") else name for name in order]
        ax.set_yticks(list(places), names, fontsize=7)
        ax.set_ylim(-0.7, len(order) - 0.3)
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.grid(axis="y", color="0.93")
        count = rows.image.nunique()
        style_axes(ax, xlabel="rank correlation with the values", title=f"{label}, {count} photos")
        ax.legend(loc="lower right", fontsize=8, frameon=False)
    save_figure(figure, path)
