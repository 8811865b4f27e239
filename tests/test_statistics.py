"""Means, standard errors and paired differences against plain loops."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test

from caap_lab.bench.comparing import LEVEL
from caap_lab.errors import InputError
from caap_lab.statistics import (
    bootstrap_interval,
    critical_difference,
    holm,
    over_present,
    paired_statistics,
    rank_rows,
    sign_flip_p,
    standard_error,
)


def test_standard_errors_are_those_of_plain_loops() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 2))
    expected = [[np.sqrt(np.mean((v - v.mean()) ** 2) / 5) for v in row] for row in values.transpose(1, 2, 0)]
    np.testing.assert_allclose(standard_error(values), expected)
    assert np.isnan(standard_error(values[:1])).all() and standard_error(values[:1]).shape == (3, 2)
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
        expected = kept.std() / len(kept) ** 0.5 if len(kept) > 1 else np.nan  # one image shows no spread
        np.testing.assert_allclose(error[place], expected)
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


def test_sign_flip_p_tries_all_flips_of_few_images() -> None:
    paired = np.array([[1.0, 0.0], [2.0, 0.0], [-0.5, 0.0]])
    sums = [abs(np.dot(signs, paired[:, 0])) for signs in product([-1, 1], repeat=3)]
    assert sign_flip_p(paired).tolist() == [sum(s >= 2.5 for s in sums) / 8, 1.0]


def test_sign_flip_p_of_what_is_missing_is_missing() -> None:
    for count in (3, 20):  # all flips, and random ones
        paired = np.ones((count, 2))
        paired[1, 1] = np.nan
        assert np.isnan(sign_flip_p(paired)).tolist() == [False, True]


def test_sign_flip_p_is_like_scipys() -> None:
    paired = np.random.default_rng(0).normal(0.3, 1, size=(30, 2))
    expected = permutation_test(
        (paired,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=10_000, rng=1
    ).pvalue
    assert np.abs(sign_flip_p(paired) - expected).max() < 0.03  # 2.5 standard errors of the two estimates


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=(400, 3))
    low, high = bootstrap_interval(values, 0.9, samples=5000)
    half = 1.645 * values.std(0) / 20
    assert np.allclose(low, values.mean(0) - half, atol=0.01)
    assert np.allclose(high, values.mean(0) + half, atol=0.01)
    assert np.isnan(bootstrap_interval(values[:1])).all()  # one image says nothing about others
    with pytest.raises(InputError, match="between 0 and 1"):
        bootstrap_interval(values, 95)


def test_holm_is_the_closed_test_of_all_subsets() -> None:
    p = np.array([0.01, 0.4, np.nan, 0.03, 0.02, 0.9])
    there = [place for place in range(6) if place != 2]
    found = holm(p)
    assert np.isnan(found[2])
    for place in there:  # the largest Bonferroni p-value of all sets of tests that hold this one
        others = [other for other in there if other != place]
        sets = [[place, *(o for o, kept in zip(others, chosen, strict=True) if kept)]
                for chosen in product([False, True], repeat=4)]  # fmt: skip
        assert found[place] == pytest.approx(max(min(1, len(one) * p[one].min()) for one in sets))
    assert np.isnan(holm(np.array([np.nan]))).all() and not len(holm(np.array([])))


@pytest.mark.parametrize("methods, images", [(1, 6), (10, 9), (30, 11)])
def test_fewest_images_for_a_verdict_are_those_of_the_docs(methods: int, images: int) -> None:
    few, enough = (holm(sign_flip_p(np.ones((count, methods))))[0] for count in (images - 1, images))
    assert few >= LEVEL > enough == pytest.approx(methods * 2 / 2**images)
    page = " ".join((Path(__file__).parents[1] / "docs/benchmark.md").read_text(encoding="utf-8").split())
    (sentence,) = re.findall(r"at least 6 images .*?\.", page)
    assert re.search(rf"\b{images}( images)? for {methods}\b", sentence)


def test_equal_values_share_their_ranks() -> None:
    values = np.array([[0.5, 0.9, 0.5], [3.0, 1.0, 2.0]])
    assert rank_rows(values, lowest_first=False).tolist() == [[2.5, 1, 2.5], [1, 3, 2]]
    assert rank_rows(values, lowest_first=True).tolist() == [[1.5, 3, 1.5], [3, 1, 2]]


def test_critical_differences_are_those_of_demsars_table() -> None:
    for methods, q in {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}.items():
        assert critical_difference(methods, 14) == pytest.approx(q * (methods * (methods + 1) / 84) ** 0.5, abs=2e-3)
    assert critical_difference(4, 14, level=0.1) == pytest.approx(2.291 * (20 / 84) ** 0.5, abs=2e-3)
    assert np.isnan(critical_difference(1, 14)) and np.isnan(critical_difference(3, 0))
