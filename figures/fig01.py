"""Figure 1: CAAP in one picture, from a real run: blank, source, the patched context of one patch, and the map.

    python figures/fig01.py --profile demo --out runs/figures

Everything shown is the first image (or that of `--photos`) and the first model of table 1 under CAAP at its defaults,
and the patch with its highest score.
"""

import sys
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch

from caap_lab.bench.figures.data import CAAP, FigureData, FigureResult, map_scores
from caap_lab.bench.figures.needs import Need
from caap_lab.commands.figures import run_script
from caap_lab.escaping import for_plot
from caap_lab.plots.maps import outline_patches
from caap_lab.plots.printed import PAGE, at_print_size
from caap_lab.plots.style import ACCENT, new_figure

_HEIGHT = 2.3

NEEDS = (Need(1, "maps", n_models=1, images=1, caap_alone=True),)


def draw(data: FigureData) -> FigureResult:
    """CAAP in one picture, from a real run: blank, source, the patched context of one patch, and the map."""
    study = data.study(1)
    (photo,) = data.photos(study, 1)
    m = data.map(study, study.models[0], CAAP, photo, data.target())
    image = m.image.numpy()
    height, width = image.shape[:2]
    rows, columns = m.grid
    row, column = m.rank()[0]
    # The default neighbourhood: the patch and the eight around it, as far as they are in the image.
    top, left = max(row - 1, 0), max(column - 1, 0)
    bottom, right = min(row + 1, rows - 1), min(column + 1, columns - 1)
    block = (
        slice(top * height // rows, (bottom + 1) * height // rows),
        slice(left * width // columns, (right + 1) * width // columns),
    )
    white = np.full_like(image, 255)
    patched = white.copy()
    patched[block] = image[block]

    figure = new_figure(PAGE, _HEIGHT)
    blank_ax, source_ax, patched_ax, map_ax = figure.subplots(1, 4)  # what the arrow joins is side by side
    _picture(blank_ax, white, m.grid, "blank", "its run is the context")
    last = m.settings["cutoff"] - 1
    blocks = f"blocks 0 to {last}" if last else "block 0"
    _picture(source_ax, image, m.grid, "source", f"residual streams of the outlined\npatches, entering {blocks}")
    score = f"score of '{m.target_name}': {m.scores[row, column]:.2f}"
    _picture(patched_ax, patched, m.grid, f"patched context\nof patch ({row}, {column})", score)
    m.overlay(map_ax, label=f"{m.score} of '{m.target_name}'")
    map_ax.set_title("map: one such\nscore per patch")

    for ax in (source_ax, patched_ax):
        outline_patches(ax, m.grid, (height, width), (top, left, bottom, right))
    middle = (top + bottom + 1) / 2 * height / rows - 0.5
    ends = ((right + 1) * width / columns - 0.5, middle), (left * width / columns - 0.5, middle)
    look: dict[str, Any] = {
        "arrowstyle": "->",
        "color": ACCENT,
        "linewidth": 1.2,
        "annotation_clip": False,
    }  # also from the rim
    arrow = ConnectionPatch(*ends, "data", "data", axesA=source_ax, axesB=patched_ax, **look)
    figure.add_artist(arrow)
    return FigureResult(at_print_size(figure, _HEIGHT), map_scores([(study.models[0], CAAP, m)]))


def _picture(ax: Axes, pixels: np.ndarray, grid: tuple[int, int], title: str, below: str) -> None:
    """Draw a picture with thin lines between its patches."""
    ax.imshow(pixels, interpolation="nearest")
    ax.set_title(for_plot(title))
    ax.set_xlabel(for_plot(below), fontsize=8)
    height, width = pixels.shape[:2]
    ax.set_xticks([column * width / grid[1] - 0.5 for column in range(1, grid[1])], labels=[])
    ax.set_yticks([row * height / grid[0] - 0.5 for row in range(1, grid[0])], labels=[])
    ax.tick_params(length=0)
    ax.grid(color="0.5", linewidth=0.3)


if __name__ == "__main__":
    sys.exit(run_script(__file__))
