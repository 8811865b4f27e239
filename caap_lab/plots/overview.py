"""Many methods on many models: one radar chart and one row of points per metric."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from caap_lab.plots.points import plot_points, reference_key
from caap_lab.plots.printed import PAGE, at_print_size
from caap_lab.plots.radar import plot_radar
from caap_lab.plots.style import Styles, grey, new_figure, shared_legend, title_figure

_RADARS, _POINTS, _LEGEND = 2.9, 1.75, 0.5
"""Heights in inches: of the radar charts, of a row of points, and of the legend."""


def plot_overview(
    frame: pd.DataFrame, metrics: Mapping[str, str], *, styles: Styles, reference_label: str = "", title: str = ""
) -> Figure:
    """Radar charts next to each other, and below them the same numbers as points, which are easier to compare.

    Args:
        frame: One row per metric, model and method: metric, model, method, mean, se, and published (NaN for none), a
            hollow mark among the points.
        metrics: Title of each metric, with its unit, in order.
        styles: Styles of the methods, in their order.
        reference_label: Meaning of hollow marks, for the legend.
        title: Title of the figure.
    """
    height = _RADARS + _POINTS * len(metrics) + _LEGEND
    figure = new_figure(PAGE, height)
    ratios = (_RADARS, _POINTS * len(metrics) + _LEGEND)
    radars, points = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios)[:, 0]
    panels = points.subplots(len(metrics), 1, squeeze=False, sharex=True)[:, 0]
    for place, ((metric, label), ax) in enumerate(zip(metrics.items(), panels, strict=True), start=1):
        part = frame[frame["metric"] == metric]
        models = list(dict.fromkeys(part["model"]))
        table = part.pivot(index="model", columns="method", values="mean").loc[models]
        shown = [name for name in styles if name in table]
        plot_radar(table[shown], radars, (1, len(metrics), place), styles=styles, title=label)
        plot_points(
            part, "model", hue="method", reference="published", styles=styles, label=label, legend=False, ax=ax
        )  # fmt: skip
        for number in range(1, len(models), 2):  # bands separate the models
            ax.axvspan(number - 0.5, number + 0.5, color=grey(0.95), linewidth=0, zorder=0)
        ax.set_xlim(-0.5, len(models) - 0.5)
        ax.grid(visible=False, axis="x")
        ax.tick_params(axis="x", rotation=0)
        for text in ax.get_xticklabels():
            text.set(ha="center")
    known = [reference_key(reference_label)] if frame["published"].notna().any() else []
    shared_legend(figure, 6, styles, known)
    if title:
        title_figure(figure, title)
    return at_print_size(figure, height)
