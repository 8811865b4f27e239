"""What Quantus gets, and that its metrics then give our numbers, where Quantus is installed (make quantus)."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.metrics.changed_images import change_order
from caap_lab.metrics.method_runs import rank_correlation
from caap_lab.metrics.sensitivity import pixel_noise
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return build("odd_grid")


@pytest.fixture(scope="module")
def images(model: cl.HookedViT) -> torch.Tensor:
    return random_images(model, 2)


def quantus() -> Any:
    return pytest.importorskip("quantus", reason="Quantus is not installed; make quantus")


def test_arrays_are_what_the_maps_are_made_of(model: cl.HookedViT, images: torch.Tensor) -> None:
    given = cl.quantus_inputs(model, images, "input_x_gradient", upsampling="nearest-exact")
    maps = cl.attribute(model, images, "input_x_gradient", progress=False)
    assert given["model"] is model
    assert given["channel_first"] is True
    assert np.array_equal(given["x_batch"], model.preprocess(images).numpy())
    assert given["y_batch"].tolist() == [m.target for m in maps]
    wanted = torch.stack([m.upsample(mode="nearest-exact") for m in maps])[:, None]
    assert np.array_equal(given["a_batch"], wanted.double().numpy())
    again = given["explain_func"](model, given["x_batch"], given["y_batch"], device="cpu")
    assert np.array_equal(again, given["a_batch"])


def test_a_map_without_a_zero_is_counted_from_its_lowest_score(model: cl.HookedViT, images: torch.Tensor) -> None:
    m = cl.caap(model, images[0], cutoff=3)
    given = cl.quantus_inputs(model, images[0], "caap:cutoff=3", upsampling="nearest-exact")
    assert given["a_batch"].shape == (1, 1, 40, 24)
    assert given["a_batch"].min() == 0
    assert np.ptp(given["a_batch"]) == pytest.approx(float(m.scores.max() - m.scores.min()), rel=1e-6)


def test_what_quantus_cannot_read_is_refused(model: cl.HookedViT, images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="read the score of one class, and the target is"):
        cl.quantus_inputs(model, images[0], "rollout", cl.contrast(1, 2))
    with pytest.raises(InputError, match="upsampling='nearest' is not known"):
        cl.quantus_inputs(model, images[0], "rollout", upsampling="nearest")
    with pytest.raises(InputError, match=r"method=\['caap', 'rollout'\] is not one method"):
        cl.quantus_inputs(model, images[0], ["caap", "rollout"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Nearest: rollout"):
        cl.quantus_inputs(model, images[0], "rolout")
    with pytest.raises(InputError, match=r"in float32, and vit_base_patch16_224 is in torch\.float64"):
        cl.quantus_inputs(build("odd_grid", torch.float64), images[0])
    explain = cl.quantus_inputs(model, images[0], "rollout")["explain_func"]
    with pytest.raises(InputError, match="Quantus gave a Linear"):
        explain(torch.nn.Linear(1, 1), np.zeros((1, 3, 40, 24), dtype=np.float32), np.zeros(1))


@pytest.mark.filterwarnings("default")
def test_selectivity_is_deletion_by_patches(model: cl.HookedViT, images: torch.Tensor) -> None:
    """Patches of all three channels, in the order of the map, are set to zero."""
    given = cl.quantus_inputs(model, images, "libra_ixg_plus", upsampling="nearest-exact")
    metric = quantus().Selectivity(patch_size=8, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    theirs = np.array(metric(**given))
    maps = cl.attribute(model, images, "libra_ixg_plus", progress=False)
    ours = cl.insertion_deletion(model, images, maps, protocol="patches", progress=False)
    np.testing.assert_allclose(theirs, [curves.deletion_curve[1:] for curves in ours], atol=1e-5)


@pytest.mark.filterwarnings("default")
def test_pixel_flipping_changes_channels_and_is_deletion_at_every_third_step(
    model: cl.HookedViT, images: torch.Tensor
) -> None:
    """A one-channel map stands for three channels, so that each step flips a third as many pixels as it has numbers.

    Which of equal pixels comes first is left open in Quantus; so it gets each pixel's place in our order as its score.
    """
    given = cl.quantus_inputs(model, images, "libra_ixg_plus")
    places = [change_order(m, "bilinear") for m in cl.attribute(model, images, "libra_ixg_plus", progress=False)]
    given["a_batch"] = 40 * 24 - torch.stack(places)[:, None].numpy().astype(float)
    metric = quantus().PixelFlipping(features_in_step=120, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    theirs = np.array(metric(**given))
    maps = cl.attribute(model, images, "libra_ixg_plus", progress=False)
    ours = cl.insertion_deletion(model, images, maps, step=120, deletion_base="zero", progress=False)
    assert theirs.shape[1] == 3 * (len(ours[0].shares) - 1)
    np.testing.assert_allclose(theirs[:, 2::3], [curves.deletion_curve[1:] for curves in ours], atol=1e-5)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["input_x_gradient", "caap"])
def test_max_sensitivity_is_ours_under_the_same_noise(model: cl.HookedViT, images: torch.Tensor, method: str) -> None:
    given = cl.quantus_inputs(model, images, method, upsampling="nearest-exact")
    draws = iter(pixel_noise(model, 0.05, 3, 0).numpy())

    def add(arr: Any, **_: Any) -> Any:
        return arr + next(draws).reshape(1, -1)

    metric = quantus().MaxSensitivity(nr_samples=3, perturb_func=add, normalise=False, disable_warnings=True)
    theirs = metric(**given)
    ours = cl.sensitivity_check(model, images, method, radius=0.05, samples=3, progress=False)
    np.testing.assert_allclose(theirs, ours.per_image[:, 0], rtol=1e-4)


@pytest.mark.filterwarnings("default")
def test_sparseness_is_the_gini_index_of_the_map(model: cl.HookedViT, images: torch.Tensor) -> None:
    given = cl.quantus_inputs(model, images, "rollout", upsampling="nearest-exact")
    theirs = quantus().Sparseness(normalise=False, disable_warnings=True)(**given)
    for m, value in zip(cl.attribute(model, images, "rollout", progress=False), theirs, strict=True):
        sizes = np.sort(m.scores.double().numpy().ravel())
        n = len(sizes)
        gini = ((2 * np.arange(1, n + 1) - n - 1) @ sizes) / (n * sizes.sum())
        assert value == pytest.approx(gini, abs=2e-3)


@pytest.mark.filterwarnings("default")
def test_parameter_randomisation_compares_maps_by_our_rank_correlation(
    model: cl.HookedViT, images: torch.Tensor
) -> None:
    """Quantus draws the weights of module after module anew; of its own random models, our number is the same."""
    before = model.fingerprint
    given = cl.quantus_inputs(model, images[0], "input_x_gradient", upsampling="nearest-exact")
    found = quantus().MPRT(layer_order="top_down", abs=False, normalise=False, disable_warnings=True)(**given)
    assert found.pop("original") == pytest.approx([1.0])
    assert model.fingerprint == before
    interface = importlib.import_module("quantus.helpers.model.pytorch_model").PyTorchModel(model, softmax=False)
    (target,) = given["y_batch"].tolist()
    trained = cl.attribute(model, images[0], "input_x_gradient", target)
    for name, random in interface.get_random_layer_generator(order="top_down", seed=42):
        other = cl.attribute(random, images[0], "input_x_gradient", target)
        assert found.pop(name) == pytest.approx([rank_correlation(trained.scores, other.scores)], abs=1e-6)
    assert not found
