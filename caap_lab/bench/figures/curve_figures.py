"""The common part of figures 8 and 9: mean curves of all methods on the models of table 1, and the areas under them."""

import pandas as pd

from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.mean_curves import mean_curves
from caap_lab.bench.figures.published_beside import with_published
from caap_lab.bench.figures.words import means_text
from caap_lab.errors import InputError
from caap_lab.plots.curve_areas import plot_curves_and_areas
from caap_lab.plots.curves import Kind
from caap_lab.plots.style import level_styles

TABLES = (1,)
_LABELS: dict[Kind, str] = {
    "insertion": "area under the curve (%), \N{UPWARDS ARROW}",
    "deletion": "area under the curve (%), \N{DOWNWARDS ARROW}",
}


def curve_figure(data: FigureData, kind: Kind) -> FigureResult:
    """Mean curves above, areas below; the numbers are those of the curves, with the area of each curve."""
    study, result = data.study(TABLES[0]), data.result(TABLES)
    trials = result.to_dataframe()
    trials = trials[trials["error"].isna()]
    means = [
        mean_curves(trials[trials["model"] == model.label], kind).assign(model=model.label) for model in study.models
    ]
    curves = pd.concat(means, ignore_index=True)[["model", "method", "n", "share", "mean", "se"]]
    if curves.empty:
        raise InputError(f"No trial of table {TABLES[0]} could be computed, so there are no curves to draw.")
    summary = result.summary()
    areas = with_published(summary[summary["metric"] == kind], TABLES)
    styles = level_styles([method.label for method in study.methods])
    steps = [len(shares) - 1 for shares in trials["shares"].dropna()]
    figure = plot_curves_and_areas(
        curves,
        areas,
        kind,
        styles=styles,
        label=_LABELS[kind],
        reference_label="published",
        title=means_text(data.plan.protocol.name, steps),
    )
    columns = {"mean": "area", "se": "area_se", "published": "published_area", "published_se": "published_area_se"}
    beside = areas.rename(columns=columns)[["model", "method", *columns.values(), "z"]]
    return FigureResult(figure, curves.merge(beside, how="left", on=["model", "method"]))
