"""Axes on which small differences look small."""

import numpy as np
import pandas as pd
import pytest

from caap_lab.plots.lines import plot_lines
from caap_lab.plots.points import plot_points
from caap_lab.plots.spans import CORRELATION, PERCENT, SHARE, value_span
from caap_lab.plots.style import new_figure


@pytest.mark.parametrize(
    ("values", "natural", "ends"),
    [
        ([0.58, 0.62], SHARE, (0.475, 0.725)),
        ([0.01, 0.03], SHARE, (0.0, 0.25)),  # nothing below 0
        ([99.0], PERCENT, (75.0, 100.0)),
        ([0.98, 0.99], CORRELATION, (0.5, 1.0)),
        ([0.1, 0.9], SHARE, (0.1, 0.9)),  # wide enough
        ([1.2, 1.21], SHARE, (0.75, 1.21)),  # what lies beyond the possible is drawn all the same
        ([10.0, 10.4, np.nan], None, (8.9, 11.5)),
        ([-8.0, -7.9], None, (-8.95, -6.95)),
        ([-0.01, 0.02], None, (-0.01, 0.02)),
        ([0.0, 0.0], None, (-0.125, 0.125)),
        ([np.nan], None, (0.0, 1.0)),
        ([], PERCENT, (0.0, 100.0)),
    ],
)
def test_an_axis_spans_a_quarter_of_what_is_possible(values, natural, ends) -> None:
    assert value_span(np.array(values), natural) == pytest.approx(ends)


def test_charts_keep_a_sensible_axis() -> None:
    frame = pd.DataFrame({"layer": [0, 1, 2], "mean": [0.58, 0.60, 0.62], "se": 0.0})
    low, high = plot_lines(frame, "layer", natural=SHARE).get_ylim()
    assert low < 0.48 and high > 0.72 and high - low < 0.3
    low, high = plot_points(frame, "layer", natural=SHARE, horizontal=True).get_xlim()
    assert low < 0.48 and high > 0.72 and high - low < 0.3
    one, other = new_figure(4, 2).subplots(1, 2, sharey=True)  # a later panel is not cut off
    plot_lines(frame, "layer", ax=one, natural=SHARE)
    plot_lines(frame.assign(mean=[5.0, 6.0, 7.0]), "layer", ax=other)
    assert one.get_ylim()[0] < 0.6 and one.get_ylim()[1] > 7
