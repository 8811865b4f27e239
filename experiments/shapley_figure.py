"""Figure of `experiments.shapley`: the methods' rank correlations with Shapley values."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from caap_lab.plots.style import COLOURS, MARKERS, new_figure, save_figure, style_axes

COLUMNS = {"white": "blank white", "mean": "blank mean"}


def draw(found: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw one panel per model, a mark and its standard error per blank; methods sorted as on the first model."""
    means = {label: rows.groupby("method")[list(COLUMNS)].mean() for label, rows in found.items()}
    order = pd.concat(list(means.values())).groupby(level=0, sort=False).first().mean(axis=1).sort_values().index
    places = range(len(order))
    figure = new_figure(3.9 + 3.5 * len(found), 1.2 + 0.19 * len(order))
    axes = figure.subplots(1, len(found), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (label, rows) in zip(axes, found.items(), strict=True):
        errors = rows.groupby("method")[list(COLUMNS)].sem(ddof=0)
        for shift, (blank, name) in enumerate(COLUMNS.items()):
            ax.errorbar(
                means[label][blank].reindex(order),
                [place + 0.16 * (1 - 2 * shift) for place in places],
                xerr=errors[blank].reindex(order),
                fmt=MARKERS[shift],
                color=COLOURS[shift],
                markersize=4,
                linewidth=1,
                label=name,
            )
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.grid(axis="y", color="0.93")
        count = rows.image.nunique()
        style_axes(ax, xlabel="rank correlation with the values", title=f"{label}, {count} photos")
    names = [f"{name} " if name.startswith("Shapley") else name for name in order]
    axes[0].set_yticks(list(places), names, fontsize=7)
    axes[0].set_ylim(-0.7, len(order) - 0.3)
    axes[0].legend(loc="lower right", fontsize=8, frameon=False)
    save_figure(figure, path)
