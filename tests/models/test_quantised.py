"""Models that torch has quantised dynamically to int8: forward passes work, gradients are refused before the start."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from helpers.models import FAMILIES, build, random_images, randomise, timm_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"),
]

QUICK: dict[str, dict[str, Any]] = {"tis": {"clusters": 4}, "rise": {"samples": 20}}


def quantised(vit: nn.Module, dtype: torch.dtype = torch.qint8) -> nn.Module:
    return quantize_dynamic(vit.eval(), {nn.Linear}, dtype=dtype)


@pytest.fixture(scope="module")
def model() -> HookedViT:
    """A small ViT, quantised."""
    return HookedViT(quantised(randomise(lambda: timm_model("vit_base_patch16_224", depth=2))))


@pytest.mark.parametrize("family", ["dinov2_swiglu", "deit_distilled", "siglip"])
def test_logits_are_torchs_own(family: str) -> None:
    vit = quantised(randomise(FAMILIES[family]))
    model = cl.wrap(vit)
    images = random_images(model, 1)
    assert model.body is vit
    assert torch.equal(model(images), vit(images))


def test_biases_apart_from_a_quantised_layer_are_added_where_timm_does() -> None:
    vit: Any = quantised(randomise(FAMILIES["beit"]))
    with pytest.raises(InputError, match=r"attn\.qkv is quantised.*Set blocks\.0\.attn\.qkv_bias_separate = True"):
        cl.wrap(vit)
    for block in vit.blocks:
        block.attn.qkv_bias_separate = True
    model = cl.wrap(vit)
    images = random_images(model, 1)
    assert torch.equal(model(images), vit(images))


def test_the_fingerprint_is_of_the_packed_weights(model: HookedViT) -> None:
    again = HookedViT(copy.deepcopy(model.vit))
    assert again.fingerprint == model.fingerprint != build("vit").fingerprint
    layer = again.vit.blocks[1].mlp.fc2
    weight, bias = layer._packed_params._weight_bias()
    seen = {again.fingerprint}
    for changed in (
        torch._make_per_tensor_quantized_tensor(weight.int_repr() + 1, weight.q_scale(), weight.q_zero_point()),
        torch._make_per_tensor_quantized_tensor(weight.int_repr(), weight.q_scale() * 2, weight.q_zero_point()),
        torch._make_per_tensor_quantized_tensor(weight.int_repr(), weight.q_scale(), weight.q_zero_point() + 1),
    ):
        layer.set_weight_bias(changed, bias)
        seen.add(again.fingerprint)
    layer.set_weight_bias(weight, bias + 1)
    seen.add(again.fingerprint)
    assert len(seen) == 5
    layer.set_weight_bias(weight, bias)
    assert again.fingerprint == model.fingerprint
    half = HookedViT(quantised(randomise(lambda: timm_model("vit_base_patch16_224", depth=2)), torch.float16))
    assert half.fingerprint not in seen


def test_what_runs_forwards_runs_and_methods_with_gradients_are_refused(
    model: HookedViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(model, 2)
    with monkeypatch.context() as patched:
        patched.setattr(HookedViT, "forward", lambda *_, **__: pytest.fail("the model ran"))
        for name in (name for name, method in METHODS.items() if method.backwards.text != "0"):
            with pytest.raises(InputError, match=rf"{name} needs gradients, .*qkv is quantised.*run on it are caap"):
                cl.attribute(model, images, name, 3, progress=False)
        with pytest.raises(InputError, match=r"libragrad needs gradients.*qkv is quantised"), cl.libragrad(model):
            pass
        with pytest.raises(InputError, match=r"completeness_error needs gradients.*qkv is quantised"):
            cl.completeness_error(model, images)
    ran = [name for name, method in METHODS.items() if method.backwards.text == "0"]
    assert {"caap", "rollout", "rise", "occlusion", "atman", "simple_insertion"} <= set(ran)
    for name in ran:
        both = cl.attribute(model, images, name, 3, progress=False, **QUICK.get(name, {}))
        alone = cl.attribute(model, images[1], name, 3, progress=False, **QUICK.get(name, {}))
        assert isinstance(both, list) and isinstance(alone, AttributionMap)
        assert both[1].scores.isfinite().all() and both[1].scores.std() > 0
        assert torch.equal(both[1].scores, alone.scores), f"{name}: rounded by what another image holds"
    assert not model.has_hooks()


def test_curves_and_formats(model: HookedViT) -> None:
    images = random_images(model, 2)
    maps = cl.attribute(model, images, "rollout", 3, progress=False)
    assert isinstance(maps, list)
    protocol = "xplique"  # of ten steps
    together = cl.insertion_deletion(model, list(images), maps, protocol=protocol, progress=False)
    alone = cl.insertion_deletion(model, images[1], maps[1], protocol=protocol, progress=False)
    assert (together[1].insertion, together[1].deletion) == (alone.insertion, alone.deletion)  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match=r"qkv is quantised and needs float32, not torch.float64: call model\.float"):
        HookedViT(copy.deepcopy(model.vit)).double()(images.double())


@pytest.mark.parametrize("method", ["rise:samples=20", "shapley:samples=20", "occlusion", "score_cam"])
def test_chunks_change_no_map(model: HookedViT, method: str) -> None:
    image = random_images(model, 1)
    found = [cl.attribute(model, image, method, 3, chunk_size=size, progress=False) for size in (1, 8)]
    assert torch.equal(found[0].scores, found[1].scores)  # type: ignore[union-attr]


def test_caap_is_near_that_of_the_plain_weights(model: HookedViT) -> None:
    plain = HookedViT(randomise(lambda: timm_model("vit_base_patch16_224", depth=2)))
    image = random_images(plain, 1)
    found, expected = (cl.caap(m, image, 3, progress=False) for m in (model, plain))
    assert isinstance(found, AttributionMap) and isinstance(expected, AttributionMap)
    assert torch.corrcoef(torch.stack([found.scores.flatten(), expected.scores.flatten()]))[0, 1] > 0.9


def test_activations_are_recorded_and_put_back(model: HookedViT) -> None:
    images = random_images(model, 2)
    store = model.record(images, ["resid_post", "pattern"], progress=False)
    assert torch.equal(store["resid_post", 1][1], model.run_with_cache(images[1])[1]["blocks.1.hook_resid_post"][0])
    logits, cache = model.run_with_cache(images[:1])
    patched = model.run_with_hooks(
        images[1:], fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: cache["blocks.1.hook_resid_post"])]
    )
    torch.testing.assert_close(patched, logits)
