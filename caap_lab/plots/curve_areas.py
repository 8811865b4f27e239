"""Mean curves of several models, and below them the areas under the curves of each method."""

import pandas as pd
from matplotlib.figure import Figure

from caap_lab.plots.curves import Kind, plot_mean_curves
from caap_lab.plots.points import plot_points, reference_key
from caap_lab.plots.printed import PAGE, at_print_size
from caap_lab.plots.style import Styles, new_figure, shared_legend, style_axes, title_figure

_HEIGHT = 4.15


def plot_curves_and_areas(
    curves: pd.DataFrame,
    areas: pd.DataFrame,
    kind: Kind,
    *,
    styles: Styles,
    label: str,
    reference_label: str = "",
    title: str = "",
) -> Figure:
    """One column per model at print size: curves with bands of one standard error, and the areas under them.

    Args:
        curves: One row per model, method and share of pixels: model, method, n (images), share (0 to 1), mean, se.
        areas: One row per model and method: model, method, mean, se, and published (NaN for none), a hollow mark.
        kind: "insertion" or "deletion".
        styles: Styles of the methods, in their order.
        label: The quantity of the areas, with its unit.
        reference_label: Meaning of hollow marks, for the legend.
        title: Title of the figure.
    """
    models = list(dict.fromkeys(curves["model"]))
    figure = new_figure(PAGE, _HEIGHT)
    panels = figure.subplots(2, len(models), squeeze=False, sharey="row", height_ratios=(1.1, 1))
    for column, (above, below), model in zip(range(len(models)), panels.T, models, strict=True):
        part = curves[curves["model"] == model]
        plot_mean_curves(part, kind, above, styles=styles, ylabel="" if column else "probability of the class")
        style_axes(above, title=f"{model}, {_count(part['n'])}")
        rows = areas[areas["model"] == model]
        plot_points(
            rows, "method", hue="method", reference="published", styles=styles, horizontal=True, beside=False,
            label=label, legend=False, ax=below,
        )  # fmt: skip
    known = [reference_key(reference_label)] if areas["published"].notna().any() else []
    shared_legend(figure, 6, styles, known)
    if title:
        title_figure(figure, title)
    return at_print_size(figure, _HEIGHT)


def _count(counts: "pd.Series[int]") -> str:
    low, high = counts.min(), counts.max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"
