"""Figure 10: InsDel of all methods over the backbones of tables 1, 4 and 6, as a radar and as dots.

    python figures/fig10.py --profile demo --out runs/figures

One spoke per backbone, one line per method; beside it the same numbers as dots, which are easier to compare.
"""

import sys

from caap_lab.bench.figure_data import FigureData, FigureResult
from caap_lab.commands.figures import run_script
from caap_lab.plots.points import plot_points
from caap_lab.plots.radar import plot_radar
from caap_lab.plots.style import level_styles, new_figure, shared_legend

TABLES = (1, 4, 6)


def draw(data: FigureData) -> FigureResult:
    """One spoke per backbone, one line per method; beside it the same numbers as dots."""
    summary = data.result(TABLES).summary()
    frame = summary[summary["metric"] == "insdel"].drop_duplicates(["model", "method"])
    models, methods = list(frame["model"].unique()), list(frame["method"].unique())
    means = frame.pivot(index="model", columns="method", values="mean").loc[models, methods]
    styles = level_styles(methods)
    figure = new_figure(11, 5)
    plot_radar(means, figure, (1, 2, 1), styles=styles, title="InsDel (%)")
    dots = figure.add_subplot(1, 2, 2)
    label = "InsDel (%), mean ± standard error"
    plot_points(frame, "model", hue="method", styles=styles, horizontal=True, label=label, ax=dots, legend=False)
    shared_legend(figure, styles=styles)
    return FigureResult(figure, frame.drop(columns=["study", "metric"]).reset_index(drop=True))


if __name__ == "__main__":
    sys.exit(run_script(__file__))
