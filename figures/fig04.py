"""Figure 4: CAAP over the blank image: six metrics, one mark per model of tables 1 and 2.

    python figures/fig04.py --profile demo --out runs/figures

Hollow marks are the paper's numbers for the default, white.
"""

import sys

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import sweep_needs
from caap_lab.bench.figures.setting_figures import TABLES, figure_over_names
from caap_lab.commands.figures import run_script

BLANKS = {"white": "White", "black": "Black", "mean": "Mean", "noise": "Noisy", "blurred_noise": "Blur Noisy"}
"""The paper's five blanks, and their names there."""

NEEDS = sweep_needs(TABLES, "blank", tuple(BLANKS))


def draw(data: FigureData) -> FigureResult:
    """Blanks: six metrics, one mark per model."""
    frame = data.sweep(cl.sweep_blanks, tables=TABLES, blanks=tuple(BLANKS))
    return figure_over_names(data, frame, "blank", BLANKS, "white", "CAAP over the blank")


if __name__ == "__main__":
    sys.exit(run_script(__file__))
