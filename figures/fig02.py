"""Figure 2: one image under all methods of table 1, one row per model.

    python figures/fig02.py --profile demo --out runs/figures

The image is the first one of table 1, or that of `--photos`. The explained class is each model's own prediction, as in
table 1, or `--target`. Each map has its own colour range.
"""

import sys

from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.map_figures import sheet_of_maps
from caap_lab.bench.figures.needs import Need
from caap_lab.commands.figures import run_script

NEEDS = (Need(1, "maps", images=1),)


def draw(data: FigureData) -> FigureResult:
    """One image of table 1 under all its methods, on each of its models."""
    study = data.study(1)
    (photo,) = data.photos(study, 1)
    return sheet_of_maps(data, study, photo, [(model, data.target()) for model in study.models])


if __name__ == "__main__":
    sys.exit(run_script(__file__))
