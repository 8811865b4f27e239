"""How far and how widely attention looks, against plain loops."""

import numpy as np
import pytest
import torch

from caap_lab.diagnostics.head_measures import (
    attention_distance,
    attention_entropy,
    patch_distances,
    query_distance,
    query_entropy,
)
from helpers.models import build


def test_means_are_those_of_the_queries() -> None:
    spec = build("odd_grid").spec
    generator = torch.Generator().manual_seed(0)
    pattern = torch.rand(2, 3, spec.n_tokens, spec.n_tokens, generator=generator).softmax(-1)
    distances = patch_distances(spec)
    (rows, cols), (high, wide) = spec.grid, spec.patch_size
    far, wide_looked = np.zeros((2, 3)), np.zeros((2, 3))
    for query in range(spec.n_patches):
        row, col = divmod(query, cols)
        of_query = [np.hypot(high * (r - row), wide * (c - col)) for r in range(rows) for c in range(cols)]
        assert distances[query].tolist() == pytest.approx(of_query)
        looked = pattern[:, :, spec.n_prefix + query]
        one = query_distance(looked[..., spec.n_prefix :], distances[query])
        plain = (looked[..., spec.n_prefix :].numpy() * of_query).sum(-1) / looked[..., spec.n_prefix :].sum(-1).numpy()
        np.testing.assert_allclose(one, plain, rtol=1e-5)
        entropy = query_entropy(looked)
        np.testing.assert_allclose(entropy, -(looked * looked.log()).sum(-1), rtol=1e-5)
        far += one.numpy() / spec.n_patches
        wide_looked += entropy.numpy() / spec.n_patches
    np.testing.assert_allclose(attention_distance(pattern, distances), far, rtol=1e-5)
    np.testing.assert_allclose(attention_entropy(pattern, spec.n_patches), wide_looked, rtol=1e-5)


def test_who_looks_at_no_patch_looks_nowhere() -> None:
    assert query_distance(torch.zeros(4), torch.ones(4)).isnan()
    assert query_entropy(torch.tensor([1.0, 0.0])) == 0
