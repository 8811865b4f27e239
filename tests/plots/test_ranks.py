"""Mean ranks with bars that join what cannot be told apart."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from caap_lab.plots.ranks import joining_bars, plot_ranks
from caap_lab.plots.style import HIGHLIGHT


@pytest.mark.parametrize("difference", [0.5, 1.0, 2.5, 40.0])
def test_two_methods_share_a_bar_exactly_where_they_cannot_be_told_apart(difference: float) -> None:
    ranks = np.sort(np.random.default_rng(0).uniform(1, 30, size=30))
    bars = joining_bars(ranks, difference)
    for one in range(30):
        for other in range(one + 1, 30):
            assert any(first <= one and other <= last for first, last in bars) == (
                ranks[other] - ranks[one] < difference
            )
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(bars))  # none inside another


def bars_of(ax: Axes) -> list[Line2D]:
    """The bars that join methods, which stand beside the axes."""
    return [line for line in ax.lines if not line.get_clip_on()]


def test_points_are_the_means_in_order_and_bars_do_not_cross() -> None:
    frame = pd.DataFrame({"method": ["grad_cam", "caap", "a$b"], "mean_rank": [2.4, 1.2, 2.6], "se": [0.1, 0.2, 0.3]})
    ax = plot_ranks(frame, 1.3, title="InsDel, n = 5")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["caap", "grad_cam", r"a\$b"]
    containers: Any = ax.containers
    points = [container.lines[0] for container in containers]
    assert [(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in points] == [(1.2, 0), (2.4, 1), (2.6, 2)]
    assert [p.get_marker() for p in points] == ["*", "o", "o"] and points[0].get_color() == HIGHLIGHT
    bars = bars_of(ax)
    assert [np.round(np.asarray(bar.get_ydata(), float), 2).tolist() for bar in bars] == [[-0.25, 1.25], [0.75, 2.25]]
    assert bars[0].get_window_extent().x1 < bars[1].get_window_extent().x0  # beside each other
    assert "critical difference 1.3" in ax.get_xlabel() and ax.get_title() == "InsDel, n = 5"
    assert ax.get_xlim()[0] > 0


def test_thirty_methods_fit_a_column_of_a_paper() -> None:
    names = [f"method_with_a_name_{number}" for number in range(30)]
    frame = pd.DataFrame({"method": names, "mean_rank": np.linspace(5, 25, 30), "se": 0.5})
    ax = plot_ranks(frame, 6.0)
    assert isinstance(ax.figure, Figure)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert len(bars_of(ax)) > 8
    assert max(bar.get_window_extent().x1 for bar in bars_of(ax)) < ax.figure.bbox.x1 - 1
    assert (
        ax.figure.get_size_inches()[0] <= 3.4 and min(float(text.get_fontsize()) for text in ax.get_yticklabels()) >= 6
    )
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_long_names_leave_room_for_the_ranks() -> None:
    names = ['rank_sum:first="caap:cutoff=3,attention=cached"', "caap"]
    ax = plot_ranks(pd.DataFrame({"method": names, "mean_rank": [1.4, 1.6], "se": 0.1}), 0.5, title="InsDel, n = 64")
    assert isinstance(ax.figure, Figure)
    ax.figure.draw_without_rendering()
    assert ax.xaxis.label.get_window_extent().x1 <= ax.figure.bbox.x1
    assert min(text.get_window_extent().x0 for text in ax.get_yticklabels()) >= 0


def test_ticks_of_one_method_are_ranks() -> None:
    ax = plot_ranks(pd.DataFrame({"method": ["caap"], "mean_rank": [1.0], "se": [0.0]}), float("nan"))
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1.0, 2.0]
