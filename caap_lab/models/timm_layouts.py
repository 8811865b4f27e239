"""A checkpoint's weights as timm names and shapes them for a Vision Transformer, by the filter of the model's file."""

import warnings
from typing import Any

from timm.layers import HybridEmbed
from timm.models import beit, eva, vision_transformer, vision_transformer_hybrid
from torch import Tensor

_OF_RESAMPLING = r"Using a non-tuple sequence for multi|torch.searchsorted\(\): input value tensor is non-con"
"""Torch's warnings about how timm resamples tables of relative positions."""


def as_timm_vit(vit: Any, state: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """Weights under timm's names, from these or from another layout that timm knows.

    Positions of another image size, absolute ones or tables of relative ones, are resampled to the model's grid.

    Args:
        vit: The timm model that they are for.
        state: Weights by name.
        label: The model's name in timm, or its class.

    Raises:
        KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError: timm's filter does not fit.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _OF_RESAMPLING)
        converted = _filtered(vit, dict(state), label)
    if "siglip" in label and getattr(vit, "attn_pool", None) is None:
        # timm's average-pooled SigLIP models share the files of the attention-pooled ones.
        return {name: value for name, value in converted.items() if not name.startswith("attn_pool.")}
    return converted


def _filtered(vit: Any, state: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    if isinstance(vit, eva.Eva):
        return eva.checkpoint_filter_fn(state, vit)
    if isinstance(vit, beit.Beit):
        return beit.checkpoint_filter_fn(state, vit)
    if isinstance(vit.patch_embed, HybridEmbed):
        return vision_transformer_hybrid.checkpoint_filter_fn(state, vit)
    # timm resizes FlexiViT's patches with another filter.
    resampling: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if "flexi" in label else {}
    return vision_transformer.checkpoint_filter_fn(state, vit, adapt_layer_scale=True, **resampling)
