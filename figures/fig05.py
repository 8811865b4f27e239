"""Figure 5: CAAP over the neighbourhood: six metrics, one mark per model of tables 1 and 2.

    python figures/fig05.py --profile demo --out runs/figures

The paper compares four neighbourhoods and names two of them: no padding, and the default, Radius-1 Box. The other two
are our reading, marked with a star: the smallest padding and the next larger box. Hollow marks are the paper's numbers
for the default.
"""

import sys

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import sweep_needs
from caap_lab.bench.figures.setting_figures import TABLES, figure_over_names
from caap_lab.commands.figures import run_script

NEIGHBOURHOODS = {
    "none": "No padding",
    "cross1": "Radius-1 Cross*",
    "box1": "Radius-1 Box",
    "box2": "Radius-2 Box*",
}
"""The four, starting with the smallest; a star marks our reading."""

NEEDS = sweep_needs(TABLES, "neighbourhood", tuple(NEIGHBOURHOODS))


def draw(data: FigureData) -> FigureResult:
    """Neighbourhoods: six metrics, one mark per model."""
    frame = data.sweep(cl.sweep_neighbourhoods, tables=TABLES, neighbourhoods=tuple(NEIGHBOURHOODS))
    about = "CAAP over the neighbourhood; * our reading of two that the paper does not name"
    return figure_over_names(data, frame, "neighbourhood", NEIGHBOURHOODS, "box1", about)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
