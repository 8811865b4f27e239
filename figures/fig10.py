"""Figure 10: InsDel and AUPR1 of all methods over ten backbones, as radars and as points.

    python figures/fig10.py --profile demo --out runs/figures

One spoke per backbone, one line per method; below them the same numbers as points, which are easier to compare. Hollow
marks are the paper's numbers.

The paper speaks of ten representative backbones and does not list them. They are taken to be those of the section that
the figure stands in, whose tables 4 to 9 have ten: four base, three small and three huge or giant ones. With the large
ones of tables 1 and 2 there would be fourteen. Nor does it say which metrics it draws, only that there are both
faithfulness and localisation: InsDel and AUPR1 are our reading.
"""

import sys

import pandas as pd

from caap_lab.bench.figure_data import FigureData, FigureResult
from caap_lab.bench.figure_needs import trial_needs
from caap_lab.bench.published_beside import count_text, with_published
from caap_lab.commands.figures import run_script
from caap_lab.plots.overview import plot_overview
from caap_lab.plots.style import level_styles

FAITHFULNESS, LOCALISATION = (6, 4, 8), (7, 5, 9)
"""Tables of small, base and huge models."""
TABLES = (*FAITHFULNESS, *LOCALISATION)
METRICS = {"insdel": "InsDel \N{UPWARDS ARROW} (%)", "aupr1": "AUPR1 \N{UPWARDS ARROW} (%)"}

NEEDS = trial_needs(TABLES)


def draw(data: FigureData) -> FigureResult:
    """One spoke per backbone, one line per method; below them the same numbers as points."""
    summary = data.result(TABLES).summary()
    summary = summary[summary["metric"].isin(list(METRICS))].drop_duplicates(["model", "method", "metric"])
    known = [with_published(summary[summary["metric"] == "insdel"], FAITHFULNESS)]
    known += [with_published(summary[summary["metric"] == "aupr1"], LOCALISATION)]
    frame = pd.concat(known, ignore_index=True)
    order = [method.label for table in TABLES for method in data.study(table).methods]
    labels = {name: f"{text}, {count_text(frame.loc[frame['metric'] == name, 'n'])}" for name, text in METRICS.items()}
    figure = plot_overview(frame, labels, styles=level_styles(list(dict.fromkeys(order))), reference_label="published")
    return FigureResult(figure, frame.drop(columns="study"))


if __name__ == "__main__":
    sys.exit(run_script(__file__))
