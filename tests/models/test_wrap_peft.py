"""Models with PEFT's adapters, live or merged: both give the same maps, on every family and through `cl.wrap`."""

import copy
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import nn

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS
from helpers.models import random_images, randomise, timm_model

QUICK: dict[str, dict[str, Any]] = {
    "mda": {"steps": 2},
    "tis": {"clusters": 4},
    "rise": {"samples": 20},
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
}
LAYERS = ["qkv", "q_proj", "k_proj", "v_proj", "proj", "fc1", "fc1_g", "fc1_x", "fc2"]
BODIES: dict[str, Callable[[], Any]] = {
    "vit": lambda: timm_model("vit_base_patch16_224", depth=2),
    "fused qkv and rotation": lambda: timm_model("vit_small_patch16_dinov3", depth=2, init_values=0.1),
    "split qkv and SwiGLU": lambda: timm_model("eva02_base_patch14_224", depth=2),
    "biases apart": lambda: _separate(timm_model("beit_base_patch16_224", depth=2, init_values=0.1)),
}
DEFAULT = ("caap", "gen_att", "libra_ixg_plus", "full_grad_plus", "transformer_attribution")
"""Methods that read weights, biases, attention or contexts; the others run on adapters with `make slow`."""


def _separate(vit: Any) -> nn.Module:
    for block in vit.blocks:
        block.attn.qkv_bias_separate = True
    return vit


def adapted(kind: str, **settings: Any) -> Any:
    """A model with random adapters, in evaluation mode."""
    body = randomise(BODIES[kind])
    names = {name.rpartition(".")[2] for name, part in body.named_modules() if isinstance(part, nn.Linear)}
    options: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": [layer for layer in LAYERS if layer in names],
        "init_lora_weights": False,
    }
    torch.manual_seed(0)
    return peft.get_peft_model(body, peft.LoraConfig(**{**options, **settings})).eval()


def merged(model: Any) -> nn.Module:
    return copy.deepcopy(model).merge_and_unload().eval()


def by_cost() -> list[Any]:
    pairs = [(kind, method) for kind in BODIES for method in METHODS]
    quick = {("fused qkv and rotation", method) for method in DEFAULT} | {("biases apart", "caap")}
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in pairs]


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Any, HookedViT, HookedViT]]:
    """The adapted models, wrapped live and merged, as they are asked for."""
    return {}


@pytest.mark.parametrize(("kind", "method"), by_cost())
def test_live_adapters_give_the_merged_models_maps(pairs: dict[str, Any], kind: str, method: str) -> None:
    if kind not in pairs:
        model = adapted(kind)
        pairs[kind] = (model, cl.wrap(model), cl.wrap(merged(model)))
    model, live, plain = pairs[kind]
    images = random_images(live, 1)
    assert live.vit is model.base_model.model and torch.equal(live(images), model(images))
    options = QUICK.get(method, {})
    try:
        expected = cl.attribute(plain, images, method, 3, progress=False, **options)
    except InputError:
        with pytest.raises(InputError):  # no rule for such a block, live or merged
            cl.attribute(live, images, method, 3, progress=False, **options)
        return
    found = cl.attribute(live, images, method, 3, progress=False, **options)
    assert isinstance(found, AttributionMap) and isinstance(expected, AttributionMap)
    assert (found.scores - expected.scores).abs().max() < 1e-4 * expected.scores.abs().max()


FORMS: dict[str, dict[str, Any]] = {
    "weights of the head saved whole": {"modules_to_save": ["head"], "target_modules": ["qkv"]},
    "DoRA": {"use_dora": True},
    "biases trained too": {"bias": "all", "lora_bias": True},
    "head and patches": {"target_modules": ["head", "patch_embed.proj"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_adapter_is_right(form: str) -> None:
    model = adapted("vit", **FORMS[form])
    for name, part in model.named_modules():
        if name.endswith("modules_to_save.default"):
            nn.init.normal_(part.weight)
    live, plain = cl.wrap(model), cl.wrap(merged(model))
    images = random_images(live, 1)
    assert (live(images) - randomise(BODIES["vit"]).eval()(images)).abs().max() > 0.1
    for method in ("caap", "libra_ixg_plus"):
        found, expected = (cl.attribute(one, images, method, 3, progress=False) for one in (live, plain))
        assert isinstance(found, AttributionMap) and isinstance(expected, AttributionMap)
        assert (found.scores - expected.scores).abs().max() < 1e-4 * expected.scores.abs().max()


def test_which_adapter_is_active_is_followed_and_part_of_the_fingerprint() -> None:
    model = adapted("vit")
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False))
    live, images = cl.wrap(model), torch.randn(2, 3, 32, 32)
    seen = set()
    for name in ("default", "other"):
        model.set_adapter(name)
        assert torch.equal(live(images), model(images))
        torch.testing.assert_close(live(images), cl.wrap(merged(model))(images), rtol=1e-4, atol=1e-5)
        seen.add(live.fingerprint)
    with model.disable_adapter():
        torch.testing.assert_close(live(images), randomise(BODIES["vit"]).eval()(images))
        seen.add(live.fingerprint)
    assert len(seen) == 3


def test_an_adapter_that_timm_does_not_run_is_refused() -> None:
    body = randomise(lambda: timm_model("beit_base_patch16_224", depth=2, init_values=0.1))
    model = peft.get_peft_model(body, peft.LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False))
    with pytest.raises(
        InputError, match=r"no effect.*merge_and_unload\(\)\), or set blocks\.0\.attn\.qkv_bias_separate"
    ):
        cl.wrap(model)


def test_prompts_that_peft_puts_before_the_input_are_refused() -> None:
    class Prompted(peft.PeftModel):
        active_peft_config = peft.PromptTuningConfig(num_virtual_tokens=2)  # type: ignore[assignment]

        def __init__(self, model: nn.Module) -> None:
            nn.Module.__init__(self)
            self.base_model = model  # type: ignore[assignment]

    with pytest.raises(InputError, match=r"PeftModel wraps a model: .*or pass model\.base_model\.model\."):
        HookedViT(adapted("vit"))
    with pytest.raises(InputError, match=r"Prompted puts learned prompts.*cl\.wrap\(model\.base_model\)"):
        cl.wrap(Prompted(randomise(BODIES["vit"])))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks transformers
def test_adapters_on_a_hugging_face_model_are_merged_into_its_twin() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    base = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3))
    names = {name.rpartition(".")[2] for name, part in base.named_modules() if isinstance(part, nn.Linear)}
    config = peft.LoraConfig(
        r=4,
        target_modules=sorted(names - {"classifier"}),
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    model: Any = peft.get_peft_model(base, config).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    live = cl.wrap(model)
    images = random_images(live, 2)
    with torch.no_grad():
        expected = model(images).logits
        torch.testing.assert_close(live(images), expected, rtol=1e-4, atol=1e-5)
        with model.disable_adapter():
            assert (model(images).logits - expected).abs().max() > 1e-2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = cl.wrap(merged(model))
    found, other = (cl.caap(one, images[:1], 2, progress=False) for one in (live, plain))
    assert isinstance(found, AttributionMap) and isinstance(other, AttributionMap)
    assert (found.scores - other.scores).abs().max() < 1e-4 * other.scores.abs().max()
