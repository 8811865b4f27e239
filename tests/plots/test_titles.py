"""Titles with long names of classes stay within their figure."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from caap_lab.plots.circuit import plot_circuit
from caap_lab.plots.head_maps import plot_head_maps
from caap_lab.plots.heat import plot_heat
from caap_lab.plots.lens_maps import plot_lens_maps
from caap_lab.plots.parts import plot_parts
from caap_lab.plots.style import new_figure, title_axes
from caap_lab.plots.sweeps import plot_sweep

LONG = "vit_tiny, 8 images: " + ", ".join(["soft-coated wheaten terrier rather than German short-haired pointer"] * 8)
PARTS = pd.DataFrame({"part": ["patch embedding", "mlp 0"], "mean": [1.0, -1.0], "se": [0.1, 0.1]})
NODES = pd.DataFrame({"node": ["0.0", "1.0"], "layer": [0, 1], "column": [0, 0]})
EDGES = pd.DataFrame({"sender": ["0.0"], "receiver": ["1.0"], "effect": [1.0], "read": ["q"]})
DRAWN: dict[str, Callable[..., Axes]] = {
    "heat": lambda title: plot_heat(pd.DataFrame(np.eye(3)), label="logits", title=title),
    "parts": lambda title: plot_parts(PARTS, label="logits", title=title),
    "lens": lambda title: plot_lens_maps(np.ones((1, 4, 4)), names=[7], label="logits", title=title),
    "heads": lambda title: plot_head_maps(np.ones((2, 2, 4, 4)), title=title),
    "curve": lambda title: plot_sweep(
        pd.DataFrame({"layer": [0, 1], "mean": [0.0, 1.0], "se": [0.1, 0.1]}), ["layer"], label="", title=title
    ),
    "circuit": lambda title: plot_circuit(NODES, EDGES, label="effect", title=title),
}


def is_inside(ax: Axes) -> bool:
    figure: Any = ax.figure
    figure.canvas.draw()
    box = ax.title.get_window_extent()
    return bool(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1)


@pytest.mark.parametrize("kind", DRAWN)
def test_long_titles_are_in_lines_and_cut_after_the_third(kind: str) -> None:
    ax = DRAWN[kind](LONG)
    assert is_inside(ax)
    assert ax.get_title().startswith("vit_tiny, 8") and ax.get_title().endswith(" ...")
    assert ax.get_title().count("\n") == 2


def test_a_panel_has_the_room_of_its_column_and_short_titles_stay() -> None:
    left, right = new_figure(8, 3).subplots(1, 2)
    title_axes(left, LONG)
    title_axes(right, "demo, 3 images\nlayer 2 of $x$")
    assert max(map(len, left.get_title().split("\n"))) < 45
    assert right.get_title() == "demo, 3 images\nlayer 2 of \\$x\\$"
    title_axes(right, "")
    assert right.get_title().startswith("demo")
