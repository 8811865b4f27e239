"""Maps under shuffled weights: against a loop, what must not move, and what stays as it was."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.metrics.randomisation import RandomisationCheck
from caap_lab.models.shuffled import shuffled_models
from helpers.models import build, random_images

METHODS = ["caap:cutoff=2", "IxG=input_x_gradient", "rollout"]


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return build("odd_grid")


@pytest.fixture(scope="module")
def images(model: cl.HookedViT) -> torch.Tensor:
    return random_images(model, 2)


@pytest.fixture(scope="module")
def check(model: cl.HookedViT, images: torch.Tensor) -> RandomisationCheck:
    return cl.randomisation_check(model, images, METHODS, progress=False)


@torch.no_grad()
def test_it_equals_a_loop_for_the_trained_models_prediction(
    model: cl.HookedViT, images: torch.Tensor, check: RandomisationCheck
) -> None:
    predicted = model(images).argmax(1).tolist()
    steps = ["head", "block 3", "block 2", "block 1", "block 0", "embeddings"]
    assert check.axes == {"method": ["caap:cutoff=2", "IxG", "rollout"], "shuffled": steps}
    trained = cl.attribute(model, images, "input_x_gradient", predicted, progress=False)
    for step, (_, shuffled) in enumerate(shuffled_models(model, "cascading", 0)):
        maps = cl.attribute(shuffled, images, "input_x_gradient", predicted, progress=False)
        for image in range(2):
            a, b = (m[image].scores.flatten().numpy() for m in (trained, maps))
            assert check.per_image[image, 1, step] == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
            sizes = spearmanr(np.abs(a), np.abs(b)).statistic
            assert check.data["absolute"].values[image, 1, step] == pytest.approx(sizes, abs=1e-9)
            probability = shuffled(images)[image].softmax(0)[predicted[image]]
            assert check.data["score"].values[image, step] == pytest.approx(float(probability), abs=1e-6)
    assert np.isnan(check.data["absolute"].values[:, 0]).all()  # CAAP's logits have no zero


def test_what_reads_no_head_stays_when_the_head_is_shuffled(check: RandomisationCheck) -> None:
    assert check.per_image[:, 2, 0] == pytest.approx(1)
    assert (check.per_image[:, 2, 1] < 0.99).all()  # the last block is read
    assert (np.abs(check.mean[1:, -1]) < 0.9).all()


def test_what_ignores_the_model_never_moves(model: cl.HookedViT, images: torch.Tensor) -> None:
    def brightness(model: Any, images: torch.Tensor, targets: Any) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.mean(1), model.grid)

    cl.register("brightness", brightness, reads="pixels")
    found = cl.randomisation_check(model, images, "brightness", order="independent", progress=False)
    assert found.per_image == pytest.approx(1)


def test_a_constant_map_has_no_ranks(model: cl.HookedViT, images: torch.Tensor) -> None:
    cl.register("flat", lambda model, images, targets: torch.ones(len(images), *model.grid), reads="pixels")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cl.randomisation_check(model, images[0], "flat", progress=False)
    assert np.isnan(found.mean).all()
    assert found.summary()["n"].tolist() == [0] * 6


def test_a_given_target_is_held(model: cl.HookedViT, images: torch.Tensor) -> None:
    target = [cl.contrast(1, 4), 2]
    found = cl.randomisation_check(model, images, "input_x_gradient", target, progress=False)
    maps = cl.attribute(model, images, "input_x_gradient", target, progress=False)
    *_, (_, shuffled) = shuffled_models(model, "cascading", 0)
    others = cl.attribute(shuffled, images, "input_x_gradient", target, progress=False)
    wanted = [spearmanr(a.scores.flatten(), b.scores.flatten()).statistic for a, b in zip(maps, others, strict=True)]
    assert found.per_image[:, 0, -1] == pytest.approx(wanted, abs=1e-9)


def test_the_model_stays_as_it_is_also_after_an_error(model: cl.HookedViT, images: torch.Tensor) -> None:
    before, calls = model.fingerprint, []

    def fails(model: Any, images: torch.Tensor, targets: Any) -> torch.Tensor:
        calls.append(model.fingerprint)
        return torch.full((len(images), *model.grid), float("nan") if len(calls) > 2 else 1.0)

    cl.register("fails", fails, reads="pixels")
    with pytest.raises(InputError, match="fails, with block 3 shuffled: fails returns NaN"):
        cl.randomisation_check(model, images, "fails", progress=False)
    assert model.fingerprint == before == calls[0]
    assert len(set(calls)) == 3


def test_it_says_and_shows_what_it_found(check: RandomisationCheck) -> None:
    assert repr(check).startswith("RandomisationCheck of vit_base_patch16_224, 2 images, weights shuffled in 6 steps")
    frame = check.summary()
    assert list(frame.columns) == ["method", "shuffled", "mean", "standard_error", "absolute", "n"]
    assert len(frame) == 18
    assert len(check.to_dataframe()) == 36
    ax = check.plot()
    assert [line.get_label() for line in ax.get_lines()[:3]] == check.axes["method"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["none", *check.axes["shuffled"]]
    assert list(ax.get_lines()[1].get_ydata()) == pytest.approx([1, *check.mean[1]])
    assert len(check.plot(method="rollout").get_lines()) == 2  # and the line at 0


def test_bad_input_is_refused_before_anything_runs(model: cl.HookedViT, images: torch.Tensor) -> None:
    for arguments, options, said in (
        (["rolout"], {}, "Nearest: rollout"),
        (["caap:cutof=2"], {}, "caap has no option 'cutof'"),
        (["rollout", "rollout"], {}, "'rollout' stands twice"),
        ([], {}, "No methods were given"),
        (None, {}, "methods=None is not a method or a list"),
        (["rollout"], {"order": "top"}, "order='top' is not known"),
        (["rollout"], {"seed": -1}, "seed=-1"),
        (["rollout"], {"batch_size": 0}, "batch_size"),
        (["rollout"], {"target": 9}, "9"),
    ):
        with pytest.raises(InputError, match=said):
            cl.randomisation_check(model, images, arguments, progress=False, **options)
