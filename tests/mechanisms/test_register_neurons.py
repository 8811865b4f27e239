"""Test-time registers: a neuron that makes outliers is planted, found, and moved to an added token."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab import InputError
from caap_lab.attribution.registry import METHODS
from helpers.models import HookedViT, build, random_images
from helpers.plain_caap import plain_scores

LAYER, NEURON, COUNT = 1, 5, 4


def planted(family: str) -> tuple[HookedViT, Tensor]:
    """A model whose neuron 5 of layer 1 adds a large vector at one marked patch of each image."""
    model = build(family, torch.float64)
    images = random_images(model, COUNT)
    for number, image in enumerate(images):
        image[:, 8:16, 8 * number : 8 * number + 8] = 30.0
    read = model.record(images, ["ln2.normalized"], layers=LAYER, progress=False)["ln2.normalized", LAYER]
    read = read[:, model.spec.n_prefix :]
    marked = read[range(COUNT), range(4, 4 + COUNT)].mean(0)
    along = read @ marked
    at = torch.zeros(along.shape, dtype=torch.bool)
    at[range(COUNT), range(4, 4 + COUNT)] = True
    low, high = float(along[~at].max()), float(along[at].min())
    assert high > low
    mlp: Any = model.block(LAYER).mlp  # type: ignore[attr-defined]
    layer = mlp.fc1 if hasattr(mlp, "fc1") else mlp.fc1_g
    with torch.no_grad():
        layer.weight[NEURON] = 10 * marked / (high - low)
        layer.bias[NEURON] = -10 * low / (high - low)
        if hasattr(mlp, "fc1_x"):
            mlp.fc1_x.weight[NEURON], mlp.fc1_x.bias[NEURON] = 0, -1  # the gated neuron is negative there
        mlp.fc2.weight[:, NEURON] = 400 * torch.randn(24, generator=torch.Generator().manual_seed(3)).double()
    return model, images


@pytest.mark.parametrize("family", ["deit3", "dinov2_swiglu", pytest.param("siglip", marks=pytest.mark.slow)])
def test_a_planted_neuron_is_found_and_its_norm_moves_to_the_added_token(family: str) -> None:
    model, images = planted(family)
    n = model.spec.n_prefix
    norms = cl.token_norms(model, images, batch_size=3, progress=False)
    expected = model.record(images, ["resid_post"], progress=False)
    assert np.allclose(norms.per_image[:, LAYER], expected["resid_post", LAYER].norm(dim=-1).numpy(), rtol=1e-6)
    assert np.array_equal(norms.outliers(layer=LAYER).nonzero()[1] - n, np.arange(4, 4 + COUNT))

    found = cl.register_neurons(model, images, top=3, layer=LAYER, batch_size=3, progress=False)
    first = found.table.iloc[0]
    assert (first["layer"], first["neuron"]) == (LAYER, NEURON) and found.n_outliers == COUNT
    post = model.record(images, ["post"], layers=LAYER, progress=False)["post", LAYER][:, n:, NEURON]
    at = torch.from_numpy(norms.outliers(layer=LAYER)[:, n:])
    assert np.isclose(first["outliers"], post[at].mean()) and np.isclose(first["elsewhere"], post[~at].mean())

    calm = found.top(1).moved(model)
    assert calm.spec.prefix == (*model.spec.prefix, "reg") and "RegisterNeurons: 1 of" in repr(found.top(1))
    after = cl.token_norms(calm, images, progress=False).per_image[:, LAYER]
    before = norms.per_image[:, LAYER]
    assert (after[:, n + 1 :].max(1) < 0.5 * before[:, n:].max(1)).all()
    assert (after[:, n] > 0.5 * before[:, n:].max(1)).all()

    def move(post: Tensor, hook: object) -> Tensor:
        post = post.clone()
        sign = -1 if first["difference"] < 0 else 1
        strongest = (sign * post[:, n:, NEURON]).max(dim=1).values * sign
        post[:, :, NEURON] = 0
        post[:, n, NEURON] = strongest
        return post

    with torch.no_grad():
        by_hand = model.with_extra_tokens().run_with_hooks(images, fwd_hooks=[(f"blocks.{LAYER}.mlp.hook_post", move)])
        assert (calm(images) - by_hand).abs().max() < 1e-10
        assert torch.equal(calm(images), calm.vit(images)) and (calm(images) - model(images)).abs().max() > 1e-3
    assert calm.fingerprint != model.with_extra_tokens().fingerprint and not calm.has_hooks()


SLOW = [pytest.param(context, marks=pytest.mark.slow) for context in ("free", "frozen", "dropped")]


@pytest.mark.parametrize("context", ["clamped", *SLOW])
def test_caap_of_the_changed_model_equals_the_plain_definition(context: str) -> None:
    model, images = planted("deit3")
    calm = cl.register_neurons(model, images, top=2, layer=LAYER, progress=False).moved(model)
    found = cl.caap(calm, images[:1], 0, context=context, cutoff=3).all_scores
    expected = plain_scores(calm, images[:1], cutoff=3, context=context, step=2)
    assert (found[::2, ::2] - expected).abs().max() < 1e-9


@pytest.mark.slow
def test_all_methods_take_the_changed_model() -> None:
    model, images = planted("deit3")
    calm = cl.register_neurons(model, images, top=2, layer=LAYER, progress=False).moved(model).float()
    refused, plain = set(), random_images(model, 1).float()
    for method in METHODS:
        try:
            found = cl.attribute(calm, plain, method, 0, progress=False)
        except InputError as error:
            assert "no rule for MoveNeurons" in str(error)
            refused.add(method)
        else:
            assert found.scores.isfinite().all(), method
    assert refused == {"transformer_attribution"}


def test_one_of_each_is_counted_in_the_singular() -> None:
    model, images = planted("vit")
    found = cl.register_neurons(model, images[:1], layer=LAYER, top=1, progress=False)
    assert f"in layer {LAYER}, found on 1 patch in 1 image, of" in repr(found)


def test_models_without_outliers_are_refused() -> None:
    model = build("vit")
    images = random_images(model, 2)
    with pytest.raises(InputError, match=r"No patch of 2 images has more than 9 times .* largest has"):
        cl.register_neurons(model, images, threshold=9, progress=False)
    with pytest.raises(InputError, match=r"No patch of 1 image has"):
        cl.register_neurons(model, images[:1], threshold=9, progress=False)
    for threshold in (1, float("nan")):
        with pytest.raises(InputError, match=f"threshold={threshold} must be"):
            cl.register_neurons(model, images, threshold=threshold, progress=False)
    with pytest.raises(InputError, match="layer=7"):
        cl.register_neurons(model, images, layer=7)
    other, marked = planted("deit3")
    with pytest.raises(InputError, match="no neuron"):
        found = cl.register_neurons(other, marked, layer=LAYER, progress=False)
        found.moved(build("dinov2_swiglu"))
