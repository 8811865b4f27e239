"""Vision Transformers behind a convolutional stem: MobileCLIP-B, ViT-R26 and R50, ViT-ResNet."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import HookedViT, InputError, Patch
from caap_lab.attribution.completeness import completeness_error
from caap_lab.models.checkpoint import count_classes, load_into
from caap_lab.models.families import read_spec
from caap_lab.models.stem import stride_of
from helpers.models import TINY, conv_stem, random_images, randomise
from helpers.timm_caap import timm_scores


def bit(**options: Any) -> ResNetV2:
    """A small network of the kind in ViT-R26 and R50: standardised weights, group norms, padding as TensorFlow's."""
    conv = partial(StdConv2dSame, eps=1e-8)
    small: dict[str, Any] = {"layers": (1, 1), "channels": (128, 128), "stem_chs": 32, "num_classes": 0}
    return ResNetV2(**small | options, global_pool="", preact=False, stem_type="same", conv_layer=conv)


def resnet() -> nn.Module:
    """A small network of the kind in ViT-ResNet, which gives a list of feature maps."""
    return timm.create_model("resnet14t", features_only=True, out_indices=[2])


STEMS: dict[str, Callable[[], Any]] = {
    "convolutions": lambda: conv_stem(depth=3, img_size=(24, 32)),
    "patches_of_features": lambda: conv_stem(
        ConvStem(depth=2, channels=(6, 12), stride=(2, 2)), depth=2, patch_size=2, img_size=(24, 32)
    ),
    "any_size": lambda: conv_stem(depth=2, img_size=(24, 32), dynamic_img_size=True, global_pool="avg"),
    "resnet_v2": lambda: conv_stem(bit(), depth=2, img_size=(24, 32)),
    "resnet": lambda: conv_stem(resnet(), depth=2, img_size=(24, 32)),
}


HYBRIDS = [
    name if name in ("vit_base_mci_224", "vit_tiny_r_s16_p8_224") else pytest.param(name, marks=pytest.mark.slow)
    for name in timm.list_models(module=["vision_transformer_hybrid"])
]


def build_stem(kind: str, dtype: torch.dtype = torch.float64) -> HookedViT:
    """A small random model."""
    return HookedViT(randomise(STEMS[kind])).to(dtype)


@pytest.mark.parametrize("kind", STEMS)
def test_logits_are_bit_equal_to_timm_and_a_patch_is_a_cell_of_the_grid(kind: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = build_stem(kind, dtype)
        images = random_images(model, 2)
        for fused in (True, False):
            for module in model.vit.modules():
                if hasattr(module, "fused_attn"):
                    module.fused_attn = fused
            with torch.no_grad():
                assert torch.equal(model(images), model.vit(images))
    assert model.grid == (3, 4) and model.patch_size == (8, 8) and model.image_size == (24, 32)


@pytest.mark.parametrize("kind", ["convolutions", pytest.param("resnet_v2", marks=pytest.mark.slow)])
def test_caap_equals_patched_forwards_of_timm(kind: str) -> None:
    model = build_stem(kind)
    image, blank = random_images(model, 2)
    for context in ("free", "clamped"):
        for cutoff in (1, model.n_layers):
            found = cl.caap(model, image, 0, blank=blank, cutoff=cutoff, context=context).all_scores
            expected = timm_scores(model.vit, model.spec, image, blank, cutoff, context)
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_what_the_stem_gives_is_a_hook_point() -> None:
    model = build_stem("convolutions")
    image = random_images(model, 1)
    with torch.no_grad():
        expected = model.vit.patch_embed(image)
    store = model.record(image, ["hook_embed"], progress=False)
    torch.testing.assert_close(store["hook_embed"], expected, atol=1e-12, rtol=0)
    moved = model.run_patched(image, Patch("hook_embed", source=expected.flip(1)))
    assert (moved - model(image)).abs().max() > 1e-6


@pytest.mark.parametrize("kind", STEMS)
def test_libragrad_is_complete_at_every_block_and_refused_for_pixels(kind: str) -> None:
    model = build_stem(kind)
    image = random_images(model, 1)
    assert completeness_error(model, image, 1).max() > 0.01
    with cl.libragrad(model):
        assert completeness_error(model, image, 1).max() < 1e-6
        assert torch.equal(model(image), model.vit(image))
        assert cl.attribute(model, image, "attcat", 1).scores.abs().max() > 0
        with pytest.raises(InputError, match="no rules for this model's convolutional stem"):
            cl.attribute(model, image, "input_x_gradient", 1)
    assert cl.attribute(model, image, "input_x_gradient", 1).scores.abs().max() > 0


@pytest.mark.parametrize(
    ("backbone", "size", "stride"),
    [
        (lambda: ConvStem(kernel_size=(4, 2, 2), stride=(4, 2, 2), padding=0), (64, 64), (16, 16)),
        (lambda: nn.Conv2d(3, 4, 9, stride=(5, 7), padding=3), (50, 70), (5, 7)),
        (bit, (224, 96), (8, 8)),
        (resnet, (33, 64), (8, 8)),
    ],
)
def test_strides_are_measured(
    backbone: Callable[[], nn.Module], size: tuple[int, int], stride: tuple[int, int]
) -> None:
    network = backbone()
    before = [value.clone() for value in network.state_dict().values()]
    assert stride_of(network, 3, size) == stride
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


def test_images_of_no_whole_number_of_cells_are_refused() -> None:
    # Padding gives them as many tokens as the next larger size, so timm takes a patch for 9 pixels.
    vit = conv_stem(depth=1, img_size=27)
    assert vit.patch_embed.grid_size == (4, 4) and vit.patch_embed.feature_ratio == (6, 6)
    with pytest.raises(InputError, match="8 x 8 pixels apart"):
        HookedViT(vit)
    with pytest.raises(InputError, match="not a whole number"):
        HookedViT(conv_stem(nn.AdaptiveAvgPool2d(4), depth=1))
    model = build_stem("convolutions")
    model.vit.set_input_size((32, 32))
    with pytest.raises(InputError, match="Wrap it again"):
        model(random_images(model, 1))


def test_pixels_that_no_patch_reads_stay_unread() -> None:
    network = ConvStem(channels=(6, 12, 24), kernel_size=2, padding=0)
    model = HookedViT(randomise(lambda: conv_stem(network, depth=1, img_size=(26, 33))))
    assert model.grid == (3, 4) and model.patch_size == (8, 8)
    image = random_images(model, 1)
    changed = image.clone()
    changed[..., 24:, :] = 0
    changed[..., 32:] = 0
    with torch.no_grad():
        assert torch.equal(model(image), model(changed))


@pytest.mark.parametrize("name", HYBRIDS)
def test_timms_names_are_read(name: str) -> None:
    with torch.device("meta"):
        spec = read_spec(timm.create_model(name, depth=1))
    stride = 32 if "s32" in name or "d_224" in name or "p8" in name else 16
    assert spec.patch_size == (stride, stride)
    assert spec.grid == tuple(size // stride for size in spec.image_size)
    assert name in cl.list_models("vit_*")


def test_mobileclips_own_layout_is_converted() -> None:
    def theirs(name: str, value: Tensor) -> tuple[str, Tensor]:
        if name == "head.weight":
            return "image_encoder.model.classifier.proj", value.T
        for ours, name_there in (
            ("patch_embed.backbone.", "patch_emb."),
            (".conv.", ".block.conv."),
            (".bn.", ".block.norm."),
            ("attn.qkv.", "pre_norm_mha.1.qkv_proj."),
            ("attn.proj.", "pre_norm_mha.1.out_proj."),
            ("norm1.", "pre_norm_mha.0."),
            ("norm2.", "pre_norm_ffn.0."),
            ("mlp.fc1.", "pre_norm_ffn.1."),
            ("mlp.fc2.", "pre_norm_ffn.4."),
            ("blocks.", "transformer."),
        ):
            name = name.replace(ours, name_there)
        if name.startswith("norm."):
            name = "post_transformer_" + name
        if name == "pos_embed":
            return "image_encoder.model.pos_embed.pos_embed.pos_embed", value[None]
        return f"image_encoder.model.{name}", value

    small: dict[str, Any] = {"depth": 1, "num_classes": 5}
    vit = randomise(lambda: conv_stem(no_embed_class=True, **small)).eval()
    nn.init.zeros_(vit.head.bias)  # MobileCLIP's projection has none
    state = dict(theirs(name, value) for name, value in vit.state_dict().items() if name != "head.bias")
    assert count_classes(state) == 5
    loaded = conv_stem(no_embed_class=True, **small).eval()
    load_into(loaded, {**state, "text_encoder.weight": torch.zeros(1)})
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), vit(images))


@pytest.mark.slow
def test_a_model_loads_by_name_at_another_size(tmp_path: Path) -> None:
    vit = timm.create_model("vit_small_r26_s32_224", num_classes=5).eval()
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    model = cl.load_model("vit_small_r26_s32_224", checkpoint=tmp_path / "model.safetensors", image_size=(64, 96))
    vit.set_input_size((64, 96))
    images = random_images(model, 1)
    with torch.no_grad():
        assert torch.equal(model(images), vit(images)) and model.grid == (2, 3)
    with pytest.raises(InputError, match="not a whole number of patches"):
        cl.load_model("vit_small_r26_s32_224", checkpoint=tmp_path / "model.safetensors", image_size=240)


def test_a_model_of_one_channel_is_refused() -> None:
    grey = ConvStem(in_chans=1, channels=(6, 12, 24))
    vit = VisionTransformer(
        **{**TINY, "patch_size": 1}, in_chans=1, embed_layer=partial(HybridEmbed, backbone=grey, proj=False)
    )
    with pytest.raises(InputError, match="reads 1 channels"):
        HookedViT(vit)
