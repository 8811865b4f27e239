"""timm twins against the originals: results, what leaves every block, and CAAP's contexts on the original itself."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import HookedViT
from caap_lab.models.twins import timm_twin
from helpers.models import random_images
from helpers.originals import ORIGINALS, Tower, build_original
from helpers.timm_caap import timm_scores

pytestmark = pytest.mark.xdist_group("transformers")  # whose models take seconds to import, once a process

BY_TRAIT = (
    *("vit", "deit_two_heads", "dinov2_registers", "dinov3_gated", "clip", "siglip", "beit", "data2vec"),
    *("siglip_tokens", "torchvision"),
)
KINDS = [kind if kind in BY_TRAIT else pytest.param(kind, marks=pytest.mark.slow) for kind in ORIGINALS]
MAPPED = [
    kind if kind in ("vit", "dinov3") else pytest.param(kind, marks=pytest.mark.slow)
    for kind in ORIGINALS
    if not kind.startswith("data2vec")  # whose blocks give tuples, which the plain forwards do not edit
]


def hooked_twin(original: Any, image_size: tuple[int, int] | None = None) -> HookedViT:
    twin = timm_twin(original, image_size)
    assert twin is not None
    return HookedViT(twin.model, head=twin.head, class_names=twin.class_names, name=twin.name)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    found, expected = found.detach(), expected.detach()
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


def tolerance_of(kind: str) -> float:
    """Of float64. transformers keeps the frequencies of DINOv3's rotation in float32, whatever the weights are in."""
    return 1e-6 if kind.startswith("dinov3") else 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_what_leaves_every_block_are_the_original_s(kind: str) -> None:
    original, tolerance = build_original(kind, torch.float64), tolerance_of(kind)
    before = torch.random.get_rng_state()
    model = hooked_twin(original.train())
    assert all(part.training for part in original.modules())
    assert torch.equal(torch.random.get_rng_state(), before)  # the user's random numbers are what they would have been
    tower, images = Tower(original.eval()), random_images(model, 2)
    logits, cache = model.run_with_cache(images)
    close(logits, tower(images), tolerance)
    if kind.startswith("torchvision"):
        return
    hidden = tower.outputs(images).hidden_states
    close(cache["blocks.0.hook_resid_pre"], hidden[0], tolerance)
    for layer in range(model.n_layers):
        close(cache[f"blocks.{layer}.hook_resid_post"], hidden[layer + 1], tolerance)


@pytest.mark.parametrize("kind", MAPPED)
def test_caap_equals_patched_forwards_of_the_original(kind: str, request: pytest.FixtureRequest) -> None:
    every = request.node.get_closest_marker("slow") is not None
    original = build_original(kind, torch.float64)
    model, probe = hooked_twin(original), None
    if not model.has_classifier:  # a linear probe makes classes of the features
        with torch.random.fork_rng():
            torch.manual_seed(0)
            probe = nn.Linear(model.n_classes, 4, dtype=torch.float64)
        model = HookedViT(model.vit, head=probe)
    image, blank = random_images(model, 2)
    tolerance = tolerance_of(kind)
    for context in ("free", "clamped"):
        for cutoff in (1, 2, model.n_layers) if every else (2,):
            found = cl.caap(model, image, 0, blank=blank, cutoff=cutoff, context=context).all_scores
            assert found is not None
            close(found, timm_scores(Tower(original, probe), model.spec, image, blank, cutoff, context), tolerance)


@pytest.mark.parametrize(
    "kind",
    [
        *("dinov2_registers", "beit_shared"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dinov2", "dinov3", "beit_both", "data2vec")),
    ],
)
def test_positions_at_another_size_are_resampled_as_the_original_does(kind: str) -> None:
    original = build_original(kind)
    model = hooked_twin(original, (40, 48))
    assert model.image_size == (40, 48) and model.grid == (5, 6)
    images = random_images(model, 2)
    close(model(images), Tower(original)(images), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip_whole", "clip_classes"])
def test_positions_that_the_original_resamples_when_asked(kind: str) -> None:
    original = build_original(kind)
    model = hooked_twin(original, (40, 48))
    images = random_images(model, 2)
    tower = Tower(original)
    given = tower.tower(pixel_values=images, interpolate_pos_encoding=True)
    result = next(
        value
        for name in ("logits", "image_embeds", "pooler_output")
        if (value := getattr(given, name, None)) is not None
    )
    close(model(images), result, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_twin_has_the_original_s_number_format(dtype: torch.dtype) -> None:
    for kind in ("vit", "dinov3"):
        original = build_original(kind, dtype)
        model = hooked_twin(original)
        images = random_images(model, 2).to(dtype)
        assert model.dtype == dtype
        close(model(images), Tower(original)(images), 1e-7 if dtype == torch.float64 else 3e-2)


def test_a_twin_is_a_snapshot_with_its_own_weights() -> None:
    original = build_original("vit")
    model = hooked_twin(original)
    images = random_images(model, 2)
    before, shared = model(images), {id(p) for p in original.parameters()} & {id(p) for p in model.parameters()}
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(1.0)
    assert not shared and torch.equal(model(images), before)


def test_class_names_and_name_come_from_the_configuration() -> None:
    original = build_original("vit")
    numbered = timm_twin(original)
    assert numbered is not None and numbered.class_names is None and numbered.name == "ViTForImageClassification"
    original.config.id2label = dict(enumerate(["tabby", "beagle", "crane", "tench", "kite"]))
    original.config.name_or_path = "owner/pets"
    model = hooked_twin(original)
    assert model.class_names.names == ("tabby", "beagle", "crane", "tench", "kite") and model.model_name == "owner/pets"
    original.classifier = torch.nn.Linear(32, 2)  # other classes, which the names do not fit
    replaced = timm_twin(original)
    assert replaced is not None and replaced.class_names is None


def test_norms_keep_their_own_eps_and_mlps_their_function() -> None:
    original = build_original("vit_pooled")  # layer_norm_eps=1e-3
    original.layers[1].layernorm_after.eps = 0.5
    model = hooked_twin(original)
    assert [block.norm2.eps for block in model.vit.blocks] == [1e-3, 0.5, 1e-3]
    assert {type(block.mlp.act).__name__ for block in model.vit.blocks} == {"GELUTanh"}


def test_short_formats_that_a_user_allows_do_not_count_as_differences() -> None:
    original = build_original("vit")
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # a class in the place of a module
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            twin = timm_twin(original)
        assert products.fp32_precision == "bf16"
    finally:
        products.fp32_precision = before
    assert twin is not None and {p.dtype for p in twin.model.parameters()} == {torch.float32}


def test_a_timm_model_inside_one_of_transformers_is_taken_out_with_its_class_names() -> None:
    names = {0: "tabby", 1: "beagle", 2: "crane"}
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", id2label=names, label2id={}, model_args={"img_size": 32, "depth": 2}
    )
    original = transformers.TimmWrapperForImageClassification(config).eval()
    model = cl.wrap(original)
    images = random_images(model, 2)
    assert torch.equal(model(images), original(pixel_values=images).logits)
    assert model.class_names.names == ("tabby", "beagle", "crane")


@pytest.mark.gpu
def test_a_twin_is_where_the_original_is() -> None:
    for kind in ("vit", "dinov2_registers", "dinov3", "siglip", "beit"):
        original = build_original(kind, torch.float16).cuda()
        model = hooked_twin(original)
        assert model.device.type == "cuda" and model.dtype == torch.float16
        images = random_images(model, 2).cuda()
        close(model(images), Tower(original)(images), 1e-2)
