"""The looks that all figures share, and how figures are shown and saved."""

from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from caap_lab.bench.paper.published import METHODS as PAPER_METHODS
from caap_lab.plots.style import (
    COLOURS,
    DASHES,
    MARKERS,
    METHODS,
    level_styles,
    new_axes,
    new_figure,
    save_figure,
    shared_legend,
    style_axes,
)

# Machado, Oliveira and Fernandes 2009: linear RGB as people without red or green cones see it.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """A colour in CIE Lab, whose distances are those that people see."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array(TO_XYZ) @ np.clip(sight @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_are_distinguishable_by_colour_blind_people() -> None:
    """The ten methods of the paper's figures among themselves, and all on paper."""
    methods = {style.colour for style in level_styles([*(names[0] for names in METHODS), "CAAP"]).values()}
    assert len(methods) == 10
    for sight in (np.eye(3), np.array(PROTANOPIA), np.array(DEUTERANOPIA)):
        for one, other in combinations(methods, 2):
            assert np.linalg.norm(lab(one, sight) - lab(other, sight)) > 17, (one, other)
        for colour in COLOURS:
            assert np.linalg.norm(lab(colour, sight) - lab("white", sight)) > 25, colour  # the paper


def test_no_two_levels_look_alike_and_caap_stands_out() -> None:
    styles = level_styles(["CAAP", *(f"method {i}" for i in range(50))])
    assert len({(style.colour, str(style.dash)) for style in styles.values()}) == 51
    assert len({(style.colour, style.marker) for style in styles.values()}) == 51
    caap = styles["CAAP"]
    assert caap.highlighted and caap[:3] == ("#000000", "-", "*")
    others = list(styles.values())[1:]
    assert not any(style.highlighted or style.colour == "#000000" or style.marker == "*" for style in others)
    models = level_styles(["ViT-B", "DeiT-S"])
    assert [style[:3] for style in models.values()] == [(COLOURS[i], DASHES[i], MARKERS[i]) for i in range(2)]


def test_methods_of_the_paper_always_look_the_same() -> None:
    names = [label for label in PAPER_METHODS if label not in ("Simple Insertion", "Simple Deletion", "E-CAAP")]
    whole, few = level_styles(names), level_styles(["new", "MDA", "other", "Grad-CAM"])
    assert len({style.marker for style in whole.values()}) == len(names) == 10
    assert few["MDA"] == whole["MDA"] and few["Grad-CAM"] == whole["Grad-CAM"]
    assert few["new"] not in (few["MDA"], few["Grad-CAM"], few["other"])
    assert list(level_styles([PAPER_METHODS[name] for name in names]).values()) == list(whole.values())  # our names


def test_axes_have_labels_a_grid_and_no_box() -> None:
    ax = style_axes(new_axes(None), xlabel="cost ($)", ylabel="_time (s)", title="a $ b")
    assert (ax.get_xlabel(), ax.get_ylabel()[-9:], ax.get_title()) == (r"cost (\$)", "_time (s)", r"a \$ b")
    assert not ax.spines["top"].get_visible() and ax.spines["left"].get_visible()
    style_axes(ax)
    assert ax.get_xlabel() == r"cost (\$)"  # None keeps what is there


def test_figures_show_themselves_and_use_no_pyplot_state() -> None:
    import matplotlib.pyplot as plt

    ax = new_axes(None)
    assert ax._repr_png_().startswith(b"\x89PNG") and ax.figure._repr_png_().startswith(b"\x89PNG")
    own = new_figure(2, 2).subplots()
    assert new_axes(own) is own and plt.get_fignums() == []


def test_saved_files_have_truetype_fonts(tmp_path: Path) -> None:
    figure = new_figure(2, 2)
    figure.subplots().set_title("words")
    png, pdf = save_figure(figure, tmp_path / "figure")
    with Image.open(png) as drawn:
        assert drawn.size == (300, 300)
    kept = BytesIO()
    figure.savefig(kept, format="pdf")
    for data in (pdf.read_bytes(), kept.getvalue()):
        assert b"/FontFile2" in data and b"/Type3" not in data
    assert figure.get_layout_engine() is not None  # as before saving


def test_one_legend_names_the_lines_of_all_panels_once() -> None:
    figure = new_figure(4, 2)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], label="a")
    for label in ("a", "b"):
        right.plot([0, 1], label=label)
    shared_legend(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    both = new_figure(4, 2)
    shared_legend(both, styles=level_styles(["CAAP", "_x"]))
    (legend,) = both.legends
    first, second = legend.get_lines()
    assert (first.get_color(), first.get_marker(), second.get_marker()) == ("#000000", "*", MARKERS[0])
    assert len(legend.get_texts()) == 2
    empty = new_figure(1, 1)
    shared_legend(empty)
    assert empty.legends == []


def test_long_labels_end_inside_the_saved_picture(tmp_path: Path) -> None:
    figure = new_figure(4, 2)
    ax = figure.add_subplot()
    ax.set_yticks([0.5], ['rank_sum:first="caap:neighbourhood=none",second=libra'], fontsize=7)
    png, _ = save_figure(figure, tmp_path / "figure")
    assert (np.asarray(Image.open(png).convert("L"))[:, :2] == 255).all()
    assert figure.dpi == new_figure(4, 2).dpi
