"""Small random Vision Transformers of every family, and images for them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from caap_lab import HookedViT  # isort: skip  # before timm, for a CPU-only torch
import timm
from timm.layers import GluMlp, HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem

from caap_lab.models.base import HookedModel
from caap_lab.models.heads import ClassAndMeanHead

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3, "num_classes": 7}


def timm_model(name: str, **switches: object) -> VisionTransformer:
    """One of timm's own entry points, with all the family's switches, at a small size."""
    return timm.create_model(name, pretrained=False, **{**TINY, **switches})


def conv_stem(backbone: nn.Module | None = None, **switches: Any) -> VisionTransformer:
    """Ordinary blocks behind a convolutional network; by default one like MobileCLIP's, with convolutions that overlap.

    Its stride is 8 pixels by `patch_size` places of the feature map.
    """
    proj = backbone is not None
    backbone = ConvStem(channels=(6, 12, 24), act_layer=nn.GELU) if backbone is None else backbone
    embed_layer = partial(HybridEmbed, backbone=backbone, proj=proj)
    return VisionTransformer(embed_layer=embed_layer, **{**TINY, "patch_size": 1, **switches})


FAMILIES: dict[str, Callable[[], Any]] = {
    "vit": lambda: timm_model("vit_base_patch16_224"),
    "vit_qk_norm": lambda: timm_model("vit_base_patch16_224", qk_norm=True),
    "deit_distilled": lambda: timm_model("deit_base_distilled_patch16_224"),
    "deit3": lambda: timm_model("deit3_base_patch16_224", init_values=0.1),
    "clip": lambda: timm_model("vit_base_patch16_clip_quickgelu_224"),
    "dinov2": lambda: timm_model("vit_base_patch14_dinov2", init_values=0.1),
    "dinov2_registers": lambda: timm_model("vit_base_patch14_reg4_dinov2", init_values=0.1),
    "dinov2_swiglu": lambda: timm_model("vit_giant_patch14_dinov2", init_values=0.1),
    "glu_gate_last": lambda: timm_model("vit_base_patch16_224", mlp_layer=GluMlp),
    "siglip": lambda: timm_model("vit_base_patch16_siglip_224"),
    "average_pool": lambda: timm_model("vit_base_patch16_gap_224"),
    "average_pool_class_token": lambda: timm_model("vit_base_patch16_224", global_pool="avg", fc_norm=False),
    "odd_grid": lambda: timm_model("vit_base_patch16_224", img_size=(40, 24)),
    "dynamic_size": lambda: timm_model("vit_base_patch16_224", dynamic_img_size=True),
    "gated_qk_norm": lambda: timm_model("vit_giant_patch14_dinov2", init_values=0.1, qk_norm=True),
    "conv_stem": lambda: conv_stem(class_token=False, global_pool="avg", fc_norm=False),
    "dinov3": lambda: timm_model("vit_small_patch16_dinov3_qkvb", init_values=0.3, global_pool="token"),
    "rope_mixed": lambda: timm_model(
        "vit_small_patch16_rope_mixed_ape_224",
        **{"global_pool": "map", "qkv_fused": False, "qk_norm": True, "init_values": 0.3},
        **{"swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True},
    ),
    "shared_keys": lambda: timm_model("vit_base_patch16_sapiens2", num_kv_heads=1, init_values=0.3),
    "beit": lambda: timm_model("beit_base_patch16_224", use_shared_rel_pos_bias=True),
}


def randomise(make: Callable[[], VisionTransformer], seed: int = 0) -> VisionTransformer:
    """A model with weights large enough that attention is far from uniform and every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        module = make()
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                embeds = ("token" in name or "embed" in name) and ".backbone." not in name
                scale = 0.5 if embeds else 1.5 / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


def build(family: str, dtype: torch.dtype = torch.float32) -> HookedViT:
    """A small random model of a family; "dino_head1" and "dino_head4" carry DINOv2's linear heads."""
    if family.startswith("dino_head"):
        vit = randomise(FAMILIES["dinov2"])
        generator = torch.Generator().manual_seed(1)
        width = TINY["embed_dim"] * (2 if family.endswith("1") else 5)
        weight = torch.randn(7, width, generator=generator) / width**0.5
        head = ClassAndMeanHead(weight, torch.randn(7, generator=generator), TINY["embed_dim"])
        return HookedViT(vit, head=head).to(dtype)
    return HookedViT(randomise(FAMILIES[family])).to(dtype)


ALL_FAMILIES = [*FAMILIES, "dino_head1", "dino_head4"]
BY_TRAIT = {
    "dinov2_registers": "class token, registers, layer scale",
    "siglip": "no class token, attention pool",
    "deit_distilled": "a second class token with a head of its own",
    "conv_stem": "no class token, mean over patches of feature maps, which overlap",
    "rope_mixed": "rotary positions of each head's own, q, k and v apart, norms of queries and keys and before "
    "projections, gated MLP, attention pool",
    "beit": "positions in the scores, biases beside their layer, the final norm behind the pooling",
    "dino_head4": "a head that reads the class token of several blocks and the mean over patches",
}
"""Families that have every trait between them: `make test` runs them, and `make slow` all others as well."""


def by_trait(families: Iterable[str] = ALL_FAMILIES, *others: object) -> list:
    """Families for `pytest.mark.parametrize`, with further parameters; those that add no trait are slow tests."""
    return [pytest.param(family, *others, marks=() if family in BY_TRAIT else pytest.mark.slow) for family in families]


def random_images(model: HookedModel, count: int, seed: int = 0) -> torch.Tensor:
    """Input tensors [count, 3, H, W] with structure at the scale of patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, *model.grid, generator=generator)
    fine = torch.randn(count, 3, *model.image_size, generator=generator)
    up = nn.functional.interpolate(coarse, model.image_size, mode="nearest")
    return (up + 0.3 * fine).to(model.dtype)
