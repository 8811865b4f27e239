"""Figure 1: CAAP in one picture, from a real run: source, blank, the patched context of one patch, and the map.

    python figures/fig01.py --profile demo --out runs/figures

Everything shown is the first image and model of table 1 under CAAP at its defaults, and the patch with its highest
score.
"""

import sys

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch

from caap_lab.bench.figure_data import FigureData, FigureResult, map_scores
from caap_lab.bench.figure_needs import Need
from caap_lab.commands.figures import run_script
from caap_lab.escaping import for_plot
from caap_lab.plots.maps import outline_patches
from caap_lab.plots.style import ACCENT, new_figure

NEEDS = (Need(1, "maps", n_models=1, images=1),)


def draw(data: FigureData) -> FigureResult:
    """CAAP in one picture, from a real run: source, blank, the patched context of one patch, and the map."""
    study = data.study(1)
    caap = next(method for method in study.methods if method.text == "caap")
    m = data.map(study, study.models[0], caap, study.data.names[0])
    image = m.image.numpy()
    height, width = image.shape[:2]
    rows, columns = m.grid
    row, column = m.rank()[0]
    # The default neighbourhood: the patch and the eight around it, as far as they lie in the image.
    top, left = max(row - 1, 0), max(column - 1, 0)
    bottom, right = min(row + 1, rows - 1), min(column + 1, columns - 1)
    block = (
        slice(top * height // rows, (bottom + 1) * height // rows),
        slice(left * width // columns, (right + 1) * width // columns),
    )
    white = np.full_like(image, 255)
    patched = white.copy()
    patched[block] = image[block]

    figure = new_figure(11, 3.5)  # high enough that the width limits the squares: the layout makes no room else
    source_ax, blank_ax, patched_ax, map_ax = figure.subplots(1, 4)
    _picture(
        source_ax, image, m.grid, "source", f"residual streams entering blocks 0 to {m.settings['cutoff'] - 1} ..."
    )
    _picture(blank_ax, white, m.grid, "blank", "... into the blank's run")
    score = f"score of '{m.target_name}': {m.scores[row, column]:.2f}"
    _picture(patched_ax, patched, m.grid, f"patched context of patch ({row}, {column})", score)
    m.overlay(map_ax, label=f"{m.score} of '{m.target_name}'")
    map_ax.set_title("map: one such score per patch", fontsize=10)

    for ax in (source_ax, patched_ax):
        outline_patches(ax, m.grid, (height, width), (top, left, bottom, right))
    middle = ((left + right + 1) / 2 * width / columns, (top + bottom + 1) / 2 * height / rows)
    arrow = ConnectionPatch(
        middle, middle, "data", "data", axesA=source_ax, axesB=patched_ax, arrowstyle="->", color=ACCENT
    )
    figure.add_artist(arrow)
    return FigureResult(figure, map_scores([[m]]))


def _picture(ax: Axes, pixels: np.ndarray, grid: tuple[int, int], title: str, below: str) -> None:
    """A picture with thin lines between its patches."""
    ax.imshow(pixels, interpolation="nearest")
    ax.set_title(for_plot(title), fontsize=10)
    ax.set_xlabel(for_plot(below), fontsize=8)
    height, width = pixels.shape[:2]
    ax.set_xticks([column * width / grid[1] - 0.5 for column in range(1, grid[1])], labels=[])
    ax.set_yticks([row * height / grid[0] - 0.5 for row in range(1, grid[0])], labels=[])
    ax.tick_params(length=0)
    ax.grid(color="0.5", linewidth=0.3)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
