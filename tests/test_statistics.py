"""Means, standard errors and paired differences against plain loops."""

import numpy as np

from caap_lab.statistics import over_present, paired_statistics, standard_error


def test_standard_errors_are_those_of_plain_loops() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 2))
    expected = [[np.sqrt(np.mean((v - v.mean()) ** 2) / 5) for v in row] for row in values.transpose(1, 2, 0)]
    np.testing.assert_allclose(standard_error(values), expected)
    assert (standard_error(values[:1]) == 0).all()
    assert np.isnan(standard_error(values[:0])).all() and standard_error(values[:0]).shape == (3, 2)
    assert np.isnan(standard_error(np.array([])))


def test_images_without_a_value_are_left_out_place_by_place() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4))
    values[:2, 1] = np.nan
    values[1:, 2] = np.nan
    values[:, 3] = np.nan
    mean, error = over_present(values)
    for place in range(3):
        kept = values[~np.isnan(values[:, place]), place]
        np.testing.assert_allclose(mean[place], kept.mean())
        np.testing.assert_allclose(error[place], kept.std() / len(kept) ** 0.5)
    assert np.isnan(mean[3]) and np.isnan(error[3])


def test_percents_and_differences_over_the_images_that_both_have() -> None:
    values, reference = np.array([0.1, 0.4, np.nan, 0.6]), np.array([0.2, np.nan, 0.3, 0.4])
    result = paired_statistics(values, reference)
    assert result["n"] == 3 and result["difference_n"] == 2
    np.testing.assert_allclose(result["mean"], 110 / 3)
    np.testing.assert_allclose([result["difference"], result["difference_se"]], [5, 15 / 2**0.5])
    assert set(paired_statistics(values)) == {"n", "mean", "se"}
    nothing = paired_statistics(np.array([np.nan]))
    assert nothing["n"] == 0 and np.isnan(nothing["mean"]) and np.isnan(nothing["se"])
