"""Figure 10: InsDel and AUPR1 of all methods over ten backbones, as radars and as points.

    python figures/fig10.py --profile demo --out runs/figures

One spoke per backbone, one line per method; below them the same numbers as points, which are easier to compare. Hollow
marks are the paper's numbers.

The paper mentions ten representative backbones but does not list them. We assume those of the section that contains the
figure, whose tables 4 to 9 have ten: four base, three small and three huge or giant ones. With the large ones of tables
1 and 2 there would be fourteen. Nor does the paper name the metrics, only that they cover both faithfulness and
localisation: InsDel and AUPR1 are our reading.
"""

import sys

import pandas as pd

import caap_lab as cl
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import trial_needs
from caap_lab.bench.figures.published_beside import with_published
from caap_lab.bench.figures.words import count_text, means_text
from caap_lab.commands.figures import run_script
from caap_lab.plots.overview import plot_overview
from caap_lab.plots.style import level_styles

FAITHFULNESS, LOCALISATION = (4, 6, 8), (5, 7, 9)
"""Tables of base, small, and huge or giant models."""
TABLES = (*FAITHFULNESS, *LOCALISATION)
METRICS = {"insdel": "InsDel \N{UPWARDS ARROW} (%)", "aupr1": "AUPR1 \N{UPWARDS ARROW} (%)"}

PUBLISHED = {"insdel": FAITHFULNESS, "aupr1": LOCALISATION}

NEEDS = trial_needs(TABLES)


def draw(data: FigureData) -> FigureResult:
    """One spoke per backbone, one line per method; below them the same numbers as points."""
    tables = data.present(TABLES)
    summary = data.result(tables).summary().drop_duplicates(["model", "method", "metric"])
    parts = [with_published(summary[summary["metric"] == name], groups) for name, groups in PUBLISHED.items()]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["n"] > 0]
    if frame.empty:
        raise cl.InputError("No trial of tables 4 to 9 could be computed, so there are no means to draw.")
    labels = {name: f"{METRICS[name]}, {count_text(part['n'])}" for name, part in frame.groupby("metric", sort=False)}
    order = [method.label for table in tables for method in data.study(table).methods]
    figure = plot_overview(
        frame,
        labels,
        styles=level_styles(list(dict.fromkeys(order))),
        reference_label="published",
        title=means_text(data.plan.protocol.name),
    )
    return FigureResult(figure, frame.drop(columns="study"))


if __name__ == "__main__":
    sys.exit(run_script(__file__))
