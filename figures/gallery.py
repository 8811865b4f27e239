"""The paper's figures 11 to 40: five images under all methods of table 1, on each of its models.

    python figures/gallery.py --profile demo --out runs/figures

Every map has its own range of colours.
"""

import sys

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, map_scores
from caap_lab.commands.figures import run_script

IMAGES = 5


def draw(data: FigureData) -> FigureResult:
    """The first images of table 1 under all its methods, one model after the other."""
    study = data.study(1)
    pairs = [(model, image) for model in study.models for image in study.data.names[:IMAGES]]
    rows = [[data.map(study, model, method, image) for method in study.methods] for model, image in pairs]
    figure = cl.gallery(rows, [method.label for method in study.methods], [model.label for model, _ in pairs])
    return FigureResult(figure, map_scores(rows))


if __name__ == "__main__":
    sys.exit(run_script(__file__))
