"""A checkpoint's weights under timm's names and shapes for a Vision Transformer, by timm's checkpoint filters."""

import warnings
from typing import Any

from timm.layers import HybridEmbed
from timm.models import beit, eva, vision_transformer, vision_transformer_hybrid
from torch import Tensor

_OF_RESAMPLING = r"Using a non-tuple sequence for multi|torch.searchsorted\(\): input value tensor is non-con"
"""torch's warnings about how timm resamples tables of relative positions."""


def as_timm_vit(vit: Any, state: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """Weights under timm's names, from timm's or another layout that timm knows.

    Positions for another image size, absolute or relative, are resampled to the model's grid.

    Args:
        vit: The timm model to load them into.
        state: Weights by name.
        label: The model's name in timm, or its class.

    Raises:
        KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError: timm's filter fails.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _OF_RESAMPLING)
        converted = _filtered(vit, dict(state), label)
    if "siglip" in label and getattr(vit, "attn_pool", None) is None:
        # timm's average-pooled SigLIP models use the files of the attention-pooled ones.
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
