"""Points with standard errors over names, and sweeps of any settings."""

import numpy as np
import pandas as pd
import pytest

from caap_lab.plots.points import plot_points, reference_key
from caap_lab.plots.style import ACCENT, COLOURS, level_styles
from caap_lab.plots.sweeps import plot_sweep

MODELS, METHODS = ["ViT_B", "A$1"], ["CAAP", "rise", "_own"]


@pytest.fixture
def frame() -> pd.DataFrame:
    numbers = np.random.default_rng(0)
    table = pd.DataFrame([(model, method) for model in MODELS for method in METHODS], columns=["model", "method"])
    return table.assign(mean=numbers.random(6), se=numbers.random(6) / 10)


def marks_and_bars(ax):
    marks = [line for line in ax.lines if line.get_marker() not in ("None", "", None)]
    return marks, [line for line in ax.lines if line not in marks]


@pytest.mark.parametrize("horizontal", [True, False])
def test_numbers_drawn_are_those_of_the_frame(frame: pd.DataFrame, horizontal: bool) -> None:
    ax = plot_points(frame, "model", hue="method", horizontal=horizontal, label="InsDel (%)", category_label="model")
    marks, bars = marks_and_bars(ax)
    numbers, places = ("get_xdata", "get_ydata") if horizontal else ("get_ydata", "get_xdata")
    ends = {(np.nanmin(getattr(bar, numbers)()), np.nanmax(getattr(bar, numbers)())) for bar in bars}
    taken = set()
    for mark, (method, part) in zip(marks, frame.groupby("method", sort=False), strict=True):
        np.testing.assert_array_equal(getattr(mark, numbers)(), part["mean"])
        for mean, error in zip(part["mean"], part["se"], strict=True):
            assert (mean - error, mean + error) in ends
        assert mark.get_color() == level_styles(METHODS)[method].colour
        taken |= {round(float(place), 3) for place in getattr(mark, places)()}
    assert len(taken) == 6 and all(abs(place - round(place)) < 0.4 for place in taken)  # beside each other
    labels = (ax.get_xlabel(), ax.get_ylabel())
    assert labels == (("InsDel (%)", "model") if horizontal else ("model", "InsDel (%)"))
    ticks = ax.get_yticklabels() if horizontal else ax.get_xticklabels()
    assert [text.get_text() for text in ticks] == ["ViT_B", r"A\$1"]
    assert len(ax.get_legend().get_texts()) == 3  # the name with an underscore, too
    if horizontal:
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_levels_that_are_missing_keep_their_place_and_stay_out_of_the_legend(frame: pd.DataFrame) -> None:
    ax = plot_points(frame[frame["method"] != "rise"], "model", hue="method", styles=level_styles(METHODS))
    assert len(ax.get_legend().get_texts()) == 2
    marks, _ = marks_and_bars(ax)
    whole, _ = marks_and_bars(plot_points(frame, "model", hue="method"))
    np.testing.assert_array_equal(marks[2].get_xdata(), whole[2].get_xdata())


def test_one_kind_of_mark_without_errors(frame: pd.DataFrame) -> None:
    one = frame[frame["method"] == "CAAP"].assign(se=np.nan)
    ax = plot_points(one, "model")
    marks, _ = marks_and_bars(ax)
    assert len(marks) == 1 and marks[0].get_color() == COLOURS[0] and ax.get_legend() is None
    np.testing.assert_array_equal(marks[0].get_ydata(), one["mean"])


def test_sweeps_over_numbers_names_and_pairs() -> None:
    frame = pd.DataFrame({"cutoff": [5, 0, 3], "mean": [3.0, 1.0, 2.0], "se": [0.1, 0.2, 0.3]})
    ax = plot_sweep(frame, ["cutoff"], label="InsDel (%)", default=3, title="demo, 2 images")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [(0, 1.0), (3, 2.0), (5, 3.0)])
    assert list(ax.lines[1].get_xdata()) == [3, 3] and ax.lines[1].get_label() == "default"
    assert ax.get_ylabel() == "InsDel (%)" and "blocks" in ax.get_xlabel()

    named = frame.assign(blank=["white", "$", "mean"])
    ax = plot_sweep(named, ["blank"], label="InsDel (%)", default="$")
    marks, _ = marks_and_bars(ax)
    by_label = {mark.get_label(): mark for mark in marks}
    assert by_label["default"].get_color() == ACCENT and np.nanmax(by_label["default"].get_ydata()) == 1
    assert [text.get_text() for text in ax.get_xticklabels()] == ["white", r"\$", "mean"]

    pairs = pd.DataFrame({"start": [0, 1, 1], "cutoff": [3, 3, 4], "mean": [1.0, 2.0, 3.0], "se": 0.0})
    ax = plot_sweep(pairs, ["start", "cutoff"], label="InsDel (%)", default=(1, 4))
    cells = ax.collections[0].get_array()
    np.testing.assert_array_equal(cells.filled(np.nan), [[1.0, np.nan], [2.0, 3.0]])
    (box,) = ax.patches
    assert box.get_xy() == (1, 1) and box.get_label() == "default" and "start" in ax.get_ylabel()
    assert not plot_sweep(pairs, ["start", "cutoff"], label="InsDel (%)").patches


@pytest.mark.parametrize("horizontal", [True, False])
def test_numbers_to_compare_with_are_hollow_marks_in_the_places_of_the_others(
    frame: pd.DataFrame, horizontal: bool
) -> None:
    frame["known"] = frame["mean"] + 5.0
    frame.loc[frame["method"] == "rise", "known"] = np.nan
    ax = plot_points(frame, "model", hue="method", reference="known", horizontal=horizontal)
    marks, _ = marks_and_bars(ax)
    hollow = [line for line in marks if line.get_markerfacecolor() == "none"]
    filled = [line for line in marks if line not in hollow]
    styles = level_styles(METHODS)
    assert len(filled) == len(METHODS)
    for line, method in zip(filled, METHODS, strict=True):
        (beside,) = (mark for mark in hollow if mark.get_markeredgecolor() == styles[method].colour)
        numbers, places = (0, 1) if horizontal else (1, 0)
        known = frame.loc[frame["method"] == method, "known"]
        np.testing.assert_array_equal(beside.get_data()[numbers], known)
        np.testing.assert_array_equal(beside.get_data()[places], line.get_data()[places])
        assert beside.get_marker() == line.get_marker() and beside.get_zorder() > line.get_zorder()
    assert (ax.get_xlim() if horizontal else ax.get_ylim())[1] > 5.0  # all are in view
    assert len(ax.get_legend().get_texts()) == 3
    front = max(filled, key=lambda line: line.get_zorder())
    assert front.get_label() == "CAAP" and front.get_markersize() > filled[1].get_markersize()
    assert reference_key("published").get_label() == "published"
