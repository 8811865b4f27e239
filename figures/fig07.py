"""Figure 7: CAAP over the cutoff: six metrics, one line per model of tables 1 and 2.

    python figures/fig07.py --profile demo --out runs/figures

The cutoff is shown as a share of the blocks, so that models of any depth compare.
"""

import sys
from functools import partial

import caap_lab as cl
from caap_lab.bench.figure_data import FigureData, FigureResult, metric_panels
from caap_lab.commands.figures import run_script
from caap_lab.plots.facets import plot_facets
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import level_styles


def draw(data: FigureData) -> FigureResult:
    """Cutoffs, as a share of the blocks: six metrics, one line per model."""
    frame = data.sweep(cl.sweep_cutoffs, tables=(1, 2))
    panels = metric_panels(frame.assign(share=frame["cutoff"] / frame["n_layers"]))
    models = level_styles(list(frame["model"].unique()))
    lines = partial(
        plot_lines,
        x="share",
        hue="model",
        styles=models,
        markers=True,
        xlabel="cutoff, share of the blocks",
        ylabel="",
    )
    figure = plot_facets(panels, lines, column="panel", wrap=3)
    figure.axes[0].set_xlim(0, 1)
    images = " to ".join(map(str, sorted(set(frame["n"]))))
    figure.suptitle(f"CAAP over the cutoff; {images} images, mean ± standard error", fontsize=10)
    return FigureResult(figure, frame)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
