"""Figures 8 and 9: mean insertion and deletion curves of all methods, on the large models of table 1."""

import numpy as np
import pandas as pd

from caap_lab.figures.world import Drawn, World
from caap_lab.plots.style import COLOURS, DASHES, new_figure, quiet_grid


def fig08(world: World) -> Drawn:
    """Insertion: the higher the curve, the better."""
    return _mean_curves(world, "insertion")


def fig09(world: World) -> Drawn:
    """Deletion: the lower the curve, the better."""
    return _mean_curves(world, "deletion")


def _mean_curves(world: World, kind: str) -> Drawn:
    study = world.study(1)
    rows = world.result([1]).to_dataframe()
    rows = rows[rows["error"].isna()]
    figure = new_figure(3.2 * len(study.models), 3.6)
    panels = figure.subplots(1, len(study.models), sharey=True, squeeze=False)[0]
    lines = []
    for ax, model in zip(panels, study.models, strict=True):
        for index, method in enumerate(study.methods):
            part = rows[(rows["model"] == model.label) & (rows["method"] == method.label)]
            if part.empty:
                continue
            share = 100 * np.asarray(part["shares"].iloc[0])
            curves = np.stack(part[f"{kind}_curve"].to_list())
            mean, error = curves.mean(axis=0), curves.std(axis=0) / np.sqrt(len(curves))
            ours = method.name == "caap"
            colour = COLOURS[6] if ours else COLOURS[index % 6]
            dash = "-" if ours else DASHES[(index // 6 + index) % len(DASHES)]
            ax.plot(share, mean, color=colour, linestyle=dash, linewidth=2 if ours else 1.2, label=method.label)
            ax.fill_between(share, mean - error, mean + error, color=colour, alpha=0.12, linewidth=0)
            told = {"model": model.label, "method": method.label, "n": len(curves)}
            lines += [
                {**told, "share": s, "mean": m, "se": e} for s, m, e in zip(share / 100, mean, error, strict=True)
            ]
        ax.set_title(model.label, fontsize=10)
        ax.set_xlabel("pixels inserted (%)" if kind == "insertion" else "pixels deleted (%)")
        ax.set_xlim(0, 100)
        quiet_grid(ax)
    panels[0].set_ylabel("probability of the explained class")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
    return Drawn(figure, pd.DataFrame(lines))
