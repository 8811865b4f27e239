"""Figures 8 and 9: mean insertion and deletion curves of all methods, on the large models of table 1."""

import pandas as pd

from caap_lab.bench.mean_curves import mean_curves
from caap_lab.escaping import for_plot
from caap_lab.figures.world import Drawn, World
from caap_lab.plots.curves import Kind, plot_mean_curves
from caap_lab.plots.style import new_figure


def fig08(world: World) -> Drawn:
    """Insertion: the higher the curve, the better."""
    return _mean_curves(world, "insertion")


def fig09(world: World) -> Drawn:
    """Deletion: the lower the curve, the better."""
    return _mean_curves(world, "deletion")


def _mean_curves(world: World, kind: Kind) -> Drawn:
    study = world.study(1)
    rows = world.result([1]).to_dataframe()
    rows = rows[rows["error"].isna()]
    methods = [method.label for method in study.methods]
    figure = new_figure(3.2 * len(study.models), 3.6)
    panels = figure.subplots(1, len(study.models), sharey=True, squeeze=False)[0]
    frames = []
    for ax, model in zip(panels, study.models, strict=True):
        means = mean_curves(rows[rows["model"] == model.label], kind)
        plot_mean_curves(means, kind, ax, methods=methods, ylabel="")
        ax.set_title(for_plot(model.label), fontsize=10)
        frames.append(means.assign(model=model.label))
    panels[0].set_ylabel("probability of the class", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
    return Drawn(figure, pd.concat(frames)[["model", "method", "n", "share", "mean", "se"]])
