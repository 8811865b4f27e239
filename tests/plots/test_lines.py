"""Lines with bands of one standard error."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from caap_lab.escaping import for_plot
from caap_lab.plots.attention import REGION_STYLES, plot_heads, plot_regions
from caap_lab.plots.curves import plot_curves, plot_mean_curves
from caap_lab.plots.lines import plot_lines
from caap_lab.plots.style import COLOURS, level_styles, new_figure


@pytest.fixture
def frame() -> pd.DataFrame:
    numbers = np.random.default_rng(0)
    rows = [(model, x) for model in ("_B", "A$1") for x in (3, 0, 7)]
    table = pd.DataFrame(rows, columns=["model", "cutoff"])
    return table.assign(mean=numbers.random(6), se=numbers.random(6))


def band(ax, index: int) -> np.ndarray:
    """The corners of a band: x, lowest and highest y."""
    (path,) = ax.collections[index].get_paths()
    points = pd.DataFrame(path.vertices, columns=["x", "y"]).groupby("x")["y"]
    return np.column_stack([points.min().index, points.min(), points.max()])


def test_numbers_drawn_are_those_of_the_frame(frame: pd.DataFrame) -> None:
    ax = plot_lines(frame, "cutoff", hue="model", xlabel="cutoff (blocks)", ylabel="InsDel (%)", markers=True)
    for index, (model, part) in enumerate(frame.groupby("model", sort=False)):
        part = part.sort_values("cutoff")
        line = ax.lines[index]
        assert line.get_label() == for_plot(model)
        np.testing.assert_array_equal(line.get_xdata(), part["cutoff"])
        np.testing.assert_array_equal(line.get_ydata(), part["mean"])
        low, high = part["mean"] - part["se"], part["mean"] + part["se"]
        np.testing.assert_array_equal(band(ax, index), np.column_stack([part["cutoff"], low, high]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("cutoff (blocks)", "InsDel (%)")
    assert len(ax.get_legend().get_texts()) == 2  # a name with an underscore, too
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 2


def test_one_line_without_levels_or_errors(frame: pd.DataFrame) -> None:
    ax = plot_lines(frame[:3], "cutoff", error=None, whole_numbers=True)
    assert len(ax.lines) == 1 and not ax.collections and ax.get_legend() is None
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("cutoff", "mean")
    assert all(tick == round(tick) for tick in ax.get_xticks())


def test_levels_keep_their_looks_and_those_without_numbers_are_left_out(frame: pd.DataFrame) -> None:
    styles = level_styles(["CAAP", "_B", "A$1"])
    frame.loc[frame["model"] == "_B", "mean"] = np.nan
    ax = plot_lines(frame, "cutoff", hue="model", styles=styles)
    (line,) = ax.lines
    assert line.get_color() == styles["A$1"].colour and line.get_linestyle() == styles["A$1"].dash
    thick = plot_lines(frame.assign(model="CAAP"), "cutoff", hue="model", styles=styles).lines[0]
    assert thick.get_linewidth() > line.get_linewidth() and thick.get_zorder() > line.get_zorder()


def test_curves() -> None:
    shares = np.linspace(0, 1, 5)
    curves = {"insertion, area 0.50": shares, "deletion, area 0.25": (1 - shares) ** 3}
    ax = plot_curves(shares, curves, ylabel="'cat': probability", title="rise")
    for line, (name, curve) in zip(ax.lines, curves.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), 100 * shares)
        np.testing.assert_array_equal(line.get_ydata(), curve)
    assert "%" in ax.get_xlabel() and ax.get_ylabel() == "'cat': probability" and ax.get_xlim() == (0, 100)
    means = pd.DataFrame({"method": ["CAAP"] * 5 + ["rise"] * 5, "share": [*shares] * 2, "mean": 0.5, "se": 0.1})
    for kind, word in (("insertion", "inserted"), ("deletion", "deleted")):
        ax = plot_mean_curves(means, kind, methods=["other", "rise", "CAAP"], legend=True)
        assert {line.get_label(): line.get_color() for line in ax.lines} == {"rise": COLOURS[1], "CAAP": COLOURS[6]}
        assert ax.get_xlabel() == f"pixels {word} (%)" and ax.get_ylabel() == "probability of the class"


def test_regions_and_heads() -> None:
    rows = [(kind, layer) for kind in [*REGION_STYLES, "object-to-class"] for layer in range(3)]
    frame = pd.DataFrame(rows, columns=["kind", "layer"]).assign(mean=0.2, se=0.01)
    frame.loc[frame["kind"] == "inter-object", "mean"] = np.nan  # no image has two objects
    ax = plot_regions(frame, ylabel="attention mass (share)", title="vit, 3 images")
    assert [line.get_label() for line in ax.lines] == [kind for kind in REGION_STYLES if kind != "inter-object"]
    assert len({str(line.get_linestyle()) for line in ax.lines}) >= 3 and ax.get_ylim()[0] == 0
    assert ax.get_xlabel() == "layer (block)" and ax.get_ylabel() == "attention mass (share)"
    panels = new_figure(4, 2).subplots(1, 2, sharey=True)
    for height, panel in enumerate(panels, start=1):
        plot_regions(frame.assign(mean=height), panel)
    assert panels[0].get_ylim()[0] == 0 and panels[0].get_ylim()[1] > 2

    heads = np.arange(12.0).reshape(4, 3)
    ax = plot_heads(heads, heads.mean(axis=1), heads.std(axis=1), ylabel="entropy (nats)")
    dots = ax.collections[0].get_offsets()
    np.testing.assert_array_equal(dots, np.column_stack([np.repeat(np.arange(4), 3), heads.reshape(-1)]))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), heads.mean(axis=1))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["each head", "mean over heads"]


def test_a_missing_mean_is_a_gap(frame: pd.DataFrame) -> None:
    ax = plot_lines(frame.assign(mean=[1.0, 2.0, 3.0, np.nan, 5.0, 6.0]), "cutoff", hue="model")
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [0, 3, 7])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [5, np.nan, 6])


def test_no_line_is_black_in_a_dark_style(frame: pd.DataFrame) -> None:
    """Colours of levels stay; black, which marks CAAP, becomes the text's colour, also in the key."""
    styles = level_styles(["Rollout", "CAAP"])
    assert styles["CAAP"].ink == "#000000"
    with plt.style.context("dark_background"):
        assert styles["CAAP"].ink == "#ffffff" and styles["Rollout"].ink == styles["Rollout"].colour
        ax = plot_lines(frame[:3].assign(model="CAAP"), "cutoff", hue="model", styles=styles)
        assert {to_hex(line.get_color()) for line in ax.lines} == {"#ffffff"}
