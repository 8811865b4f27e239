"""Figure 9: mean deletion curves of all methods on the large models of table 1, and the areas under them.

    python figures/fig09.py --profile demo --out runs/figures

A lower curve is better. Bands and bars are standard errors; hollow marks are the paper's areas.
"""

import sys

from caap_lab.bench.figures.curve_figures import TABLES as TABLES
from caap_lab.bench.figures.curve_figures import curve_figure
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import trial_needs
from caap_lab.commands.figures import run_script

NEEDS = trial_needs(TABLES)


def draw(data: FigureData) -> FigureResult:
    """Deletion curves: lower is better."""
    return curve_figure(data, "deletion")


if __name__ == "__main__":
    sys.exit(run_script(__file__))
