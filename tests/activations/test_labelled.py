"""Results under labels: intervals and paired comparisons."""

from itertools import product

import numpy as np
import pytest

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.errors import InputError


def result(values: np.ndarray) -> LabelledResult:
    axes = {"layer": range(values.shape[1]), "head": ["a", "b"]}
    return LabelledResult(labelled_dataset(axes, {"value": values}, model="toy", quantity="share"))


def test_difference_is_paired() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(size=(5, 3, 2)) * 10  # images differ much more than conditions do
    shift = generator.normal(1, 0.1, size=(5, 3, 2))
    frame = result(base + shift).difference(result(base))
    assert frame[["layer", "head"]].values.tolist() == [list(pair) for pair in product(range(3), "ab")]
    assert np.allclose(frame["difference"], shift.mean(0).reshape(-1))
    assert np.allclose(frame["standard_error"], shift.std(0).reshape(-1) / 5**0.5)
    assert (frame["low"] < frame["difference"]).all() and (frame["difference"] < frame["high"]).all()
    assert (frame["p"] == 2 / 2**5).all()  # all one way: only the two extreme sign choices are as large


def test_difference_of_other_cells_is_refused() -> None:
    with pytest.raises(InputError, match="5 images x 3 layers x 2 heads and 5 images x 2 layers x 2 heads"):
        result(np.zeros((5, 3, 2))).difference(result(np.zeros((5, 2, 2))))


def test_axes_are_counted_in_words() -> None:
    axes = {"tokens": ["a", "b"], "class": range(2), "patch": range(3), "head": range(1)}
    data = labelled_dataset(axes, {"value": np.ones((2, 2, 2, 3, 1))}, model="toy", quantity="share")
    assert "2 images x 2 tokens x 2 classes x 3 patches x 1 head;" in repr(LabelledResult(data))


def test_results_without_any_number_can_be_looked_at() -> None:
    nothing = result(np.full((2, 3, 2), np.nan))
    assert "3 layers x 2 heads; no mean" in repr(nothing)
    assert set(nothing._repr_mimebundle_()) == {"text/plain", "image/png"}
