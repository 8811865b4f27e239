"""Figure 5: CAAP over the neighbourhood: six metrics, one mark per model of tables 1 and 2.

python figures/fig05.py --profile demo --out runs/figures
"""

import sys
from functools import partial

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, metric_panels
from caap_lab.commands.figures import run_script
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.points import plot_points
from caap_lab.plots.style import level_styles

NEIGHBOURHOODS = ("none", "cross1", "box1", "diamond2", "box2")
"""The paper shows four and names two, none and box1; the others are the most likely shapes."""


def draw(data: FigureData) -> FigureResult:
    """Neighbourhoods: six metrics, one mark per model."""
    frame = data.sweep(cl.sweep_neighbourhoods, tables=(1, 2), neighbourhoods=NEIGHBOURHOODS)
    models = level_styles(list(frame["model"].unique()))
    points = partial(plot_points, category="neighbourhood", hue="model", styles=models, label="")
    figure = plot_facets(metric_panels(frame), points, column="panel", wrap=3)
    images = " to ".join(map(str, sorted(set(frame["n"]))))
    figure.suptitle(f"CAAP over the neighbourhood; {images} images, mean ± standard error", fontsize=10)
    return FigureResult(figure, frame)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
