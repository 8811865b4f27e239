"""Figure 4: CAAP over the blank image: six metrics, one mark per model of tables 1 and 2.

python figures/fig04.py --profile demo --out runs/figures
"""

import sys
from functools import partial

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, metric_panels
from caap_lab.commands.figures import run_script
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import level_styles

BLANKS = ("white", "black", "mean", "noise", "blurred_noise")
"""The paper's five."""


def draw(data: FigureData) -> FigureResult:
    """Blanks: six metrics, one mark per model."""
    frame = data.sweep(cl.sweep_blanks, tables=(1, 2), blanks=BLANKS)
    models = level_styles(list(frame["model"].unique()))
    points = partial(plot_points, category="blank", hue="model", styles=models, label="")
    figure = plot_facets(metric_panels(frame), points, column="panel", wrap=3)
    images = " to ".join(map(str, sorted(set(frame["n"]))))
    figure.suptitle(f"CAAP over the blank; {images} images, mean ± standard error", fontsize=10)
    return FigureResult(figure, frame)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
