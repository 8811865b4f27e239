"""Lines for few methods, a heat map for many."""

import pandas as pd
import pytest

from caap_lab.plots.sanity import plot_shuffled


@pytest.mark.parametrize(("count", "lines"), [(3, True), (12, False)])
def test_few_methods_are_lines_and_many_are_rows(count: int, lines: bool) -> None:
    steps = ["head", "block 0", "embeddings"]
    rows = [
        {"method": f"method {m}", "step": step, "mean": 1 - 0.05 * m - 0.1 * n, "se": 0.02}
        for m in range(count)
        for n, step in enumerate(steps)
    ]
    ax = plot_shuffled(pd.DataFrame(rows), steps, label="similarity", xlabel="shuffled", title="a model")
    texts = [tick.get_text() for tick in ax.get_xticklabels()]
    if lines:
        assert texts == ["none", *steps]
        assert len(ax.get_lines()) == count + 1
    else:
        assert texts == steps
        assert ax.collections[0].get_array().shape == (count, len(steps))
        assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"method {m}" for m in range(count)]


def test_constant_maps_have_no_point_either_where_nothing_is_shuffled() -> None:
    rows = [
        {"method": name, "step": "head", "mean": mean, "se": mean} for name, mean in (("a", float("nan")), ("b", 0.5))
    ]
    ax = plot_shuffled(pd.DataFrame(rows), ["head"], label="similarity", xlabel="shuffled")
    assert [line.get_label() for line in ax.get_lines()][:1] == ["b"]
    assert plot_shuffled(pd.DataFrame(rows[:1]), ["head"], label="similarity", xlabel="shuffled").get_legend() is None
