"""Figure 8: mean insertion curves of all methods on the large models of table 1, and the areas under them.

    python figures/fig08.py --profile demo --out runs/figures

A higher curve is better. Bands and bars are standard errors; hollow marks are the paper's areas.
"""

import sys

from caap_lab.bench.figures.curve_figures import TABLES as TABLES
from caap_lab.bench.figures.curve_figures import curve_figure
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import trial_needs
from caap_lab.commands.figures import run_script

NEEDS = trial_needs(TABLES)


def draw(data: FigureData) -> FigureResult:
    """Insertion curves: higher is better."""
    return curve_figure(data, "insertion")


if __name__ == "__main__":
    sys.exit(run_script(__file__))
