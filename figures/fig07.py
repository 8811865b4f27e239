"""Figure 7: CAAP over the cutoff: six metrics, one line per model of tables 1 and 2.

    python figures/fig07.py --profile demo --out runs/figures

The cutoff is a fraction of the blocks, so that models of different depths can be compared. The dashed line is our
default, and hollow marks on it are the paper's numbers at its own default, whose value is not known.
"""

import sys
from typing import Any

import pandas as pd

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import sweep_needs
from caap_lab.bench.figures.setting_figures import TABLES, beside_default, models_of, plot_panels
from caap_lab.commands.figures import run_script
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.plots.lines import mark_number, plot_lines
from caap_lab.plots.points import mark_reference
from caap_lab.plots.spans import PERCENT
from caap_lab.plots.style import level_styles

NEEDS = sweep_needs(TABLES, "cutoff")


def draw(data: FigureData) -> FigureResult:
    """Cutoffs, as a fraction of the blocks: six metrics, one line per model."""
    frame = data.sweep(cl.sweep_cutoffs, tables=TABLES)
    frame["default"] = frame["cutoff"] == frame["n_layers"].map(lambda n_layers: cutoff_blocks(None, n_layers))
    frame = beside_default(frame, frame["default"])
    frame.insert(frame.columns.get_loc("metric"), "share", frame["cutoff"] / frame["n_layers"])
    styles = level_styles(models_of(frame))

    def panel(part: pd.DataFrame, ax: Any, legend: bool) -> None:
        label = "cutoff, share of the blocks"
        looks: dict[str, Any] = {"styles": styles, "markers": True, "natural": PERCENT, "legend": legend}
        plot_lines(part, "share", hue="model", ax=ax, xlabel=label, ylabel="", **looks)
        for share in part.loc[part["default"], "share"].unique():
            mark_number(ax, share, "default cutoff", colour="0.4")
        for row in part[part["published"].notna()].itertuples():
            mark_reference(ax, [row.share], [row.published], styles[str(row.model)])
        ax.set_xlim(-0.02, 1.02)

    return FigureResult(plot_panels(frame, panel, data, "CAAP over the cutoff"), frame)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
