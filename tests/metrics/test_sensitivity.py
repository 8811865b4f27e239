"""Max-sensitivity against a loop, the score's own change beside it, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.metrics.sensitivity import SensitivityCheck, pixel_noise
from helpers.models import build, random_images

METHODS = ["caap:cutoff=2", "IxG=input_x_gradient"]


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return build("odd_grid")


@pytest.fixture(scope="module")
def images(model: cl.HookedViT) -> torch.Tensor:
    return random_images(model, 2)


@pytest.fixture(scope="module")
def check(model: cl.HookedViT, images: torch.Tensor) -> SensitivityCheck:
    return cl.sensitivity_check(model, images, METHODS, radius=0.1, samples=4, seed=3, progress=False)


@torch.no_grad()
def test_it_equals_a_loop(model: cl.HookedViT, images: torch.Tensor, check: SensitivityCheck) -> None:
    noise = pixel_noise(model, 0.1, 4, 3)
    pixels = noise * torch.tensor(model.preprocessing.std).view(3, 1, 1)
    assert 0.09 < float(pixels.max()) <= 0.1
    assert -0.1 <= float(pixels.min()) < -0.09
    for row, image in enumerate(images):
        target = int(model(image).argmax())
        score = model(image)[0].softmax(0)[target]
        for column, method in enumerate(["caap:cutoff=2", "input_x_gradient"]):
            first = cl.attribute(model, image, method, target).scores
            first = first - first.min() if column == 0 else first
            changes, moves, alike = [], [], []
            for draw in noise:
                other = cl.attribute(model, image + draw, method, target).scores
                other = other - other.min() if column == 0 else other
                changes.append(float((other - first).norm() / first.norm()))
                moves.append(abs(float(model(image + draw)[0].softmax(0)[target] - score)))
                alike.append(spearmanr(first.flatten(), other.flatten()).statistic)
            found = {name: check.data[name].values[row, column] for name in ("score_change", "correlation")}
            assert check.per_image[row, column] == pytest.approx(max(changes), rel=1e-4)
            assert found["score_change"] == pytest.approx(moves[int(np.argmax(changes))], abs=1e-6)
            assert found["correlation"] == pytest.approx(min(alike), abs=1e-3)
        assert check.data["max_score_change"].values[row] == pytest.approx(max(moves), abs=1e-6)
        assert check.data["score"].values[row] == pytest.approx(float(score), abs=1e-6)


def test_more_draws_can_only_raise_it_and_images_do_not_depend_on_each_other(
    model: cl.HookedViT, images: torch.Tensor, check: SensitivityCheck
) -> None:
    fewer = cl.sensitivity_check(model, images[1], METHODS, radius=0.1, samples=2, seed=3, progress=False)
    assert (fewer.per_image[0] <= check.per_image[1] * (1 + 1e-5)).all()
    alone = cl.sensitivity_check(
        model, images[1], METHODS[1], radius=0.1, samples=4, seed=3, batch_size=1, progress=False
    )
    assert alone.per_image[0] == pytest.approx(check.per_image[1, 1:], rel=1e-4)


def test_a_map_of_zeros_has_none(model: cl.HookedViT, images: torch.Tensor) -> None:
    cl.register("nothing", lambda model, images, targets: torch.zeros(len(images), *model.grid), reads="pixels")
    found = cl.sensitivity_check(model, images[0], "nothing", samples=2, progress=False)
    assert np.isnan(found.mean).all()
    assert np.isnan(found.data["correlation"].values).all()
    assert found.summary()["n"].tolist() == [0]


def test_it_says_and_shows_what_it_found(check: SensitivityCheck) -> None:
    assert repr(check).startswith(
        "SensitivityCheck of vit_base_patch16_224, 2 images, 4 draws of noise up to 0.1: max-sensitivity caap:cutoff=2 "
    )
    frame = check.summary()
    assert list(frame.columns) == ["max_sensitivity", "standard_error", "correlation", "score_change", "n"]
    assert frame["max_sensitivity"].is_monotonic_increasing
    assert len(check.to_dataframe()) == 4
    labels = [tick.get_text() for tick in check.plot().get_yticklabels()]
    assert labels == list(frame.index)


def test_bad_input_is_refused_before_anything_runs(model: cl.HookedViT, images: torch.Tensor) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"radius": 0}, "radius=0 must be a number above 0"),
        ({"radius": 5}, "radius=5"),
        ({"samples": 0}, "samples"),
        ({"seed": 1.5}, "seed"),
        ({"methods": ["rise:sample=3"]}, "rise has no option 'sample'"),
    )
    for options, said in wrong:
        with pytest.raises(InputError, match=said):
            cl.sensitivity_check(model, images, **{"methods": "rollout", "progress": False} | options)
