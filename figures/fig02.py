"""Figure 2: one image under all methods of table 1, one row per model.

    python figures/fig02.py --profile demo --out runs/figures

Every map has its own range of colours.
"""

import sys

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, map_scores
from caap_lab.commands.figures import run_script


def draw(data: FigureData) -> FigureResult:
    """One image of table 1 under all its methods, on each of its models."""
    study = data.study(1)
    image = study.data.names[0]
    rows = [[data.map(study, model, method, image) for method in study.methods] for model in study.models]
    figure = cl.gallery(rows, [method.label for method in study.methods], [model.label for model in study.models])
    return FigureResult(figure, map_scores(rows))


if __name__ == "__main__":
    sys.exit(run_script(__file__))
