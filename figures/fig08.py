"""Figure 8: mean insertion curves of all methods on the large models of table 1, with standard errors.

    python figures/fig08.py --profile demo --out runs/figures

The higher the curve, the better.
"""

import sys
from functools import partial

import pandas as pd

from caap_lab.bench.figure_data import FigureData, FigureResult
from caap_lab.bench.mean_curves import mean_curves
from caap_lab.commands.figures import run_script
from caap_lab.plots.curves import plot_mean_curves
from caap_lab.plots.facets import plot_facets

TABLES = (1,)


def draw(data: FigureData) -> FigureResult:
    """Insertion: the higher the curve, the better."""
    study = data.study(1)
    trials = data.result(TABLES).to_dataframe()
    trials = trials[trials["error"].isna()]
    means = [
        mean_curves(trials[trials["model"] == model.label], "insertion").assign(model=model.label)
        for model in study.models
    ]
    frame = pd.concat(means, ignore_index=True)[["model", "method", "n", "share", "mean", "se"]]
    curves = partial(plot_mean_curves, kind="insertion", methods=[method.label for method in study.methods])
    return FigureResult(plot_facets(frame, curves, column="model", sharey=True), frame)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
