"""Parts that timm's Beit and Eva have in common: biases of q, k and v beside their layer, and LayerScale as numbers."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.base import is_watched


def bias_apart(attn: Any) -> Float[Tensor, " d_qkv"] | None:
    """The bias of queries, keys and values where it is not that of the layer which projects them."""
    if getattr(attn, "q_bias", None) is None:
        return None
    return torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))


def qkv_product(attn: Any, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_qkv"]:
    """Queries, keys and values in one, with biases as timm adds them."""
    bias = bias_apart(attn)
    if bias is None:
        return attn.qkv(x)
    if attn.qkv_bias_separate or is_watched(attn.qkv):  # a torch hook on the layer runs, as on any other
        return attn.qkv(x) + bias
    return F.linear(x, attn.qkv.weight, bias)


def kv_product(attn: Any, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_kv"] | None:
    """Keys and values alone: their two thirds of the product; None where something else stands in the layer's place."""
    layer = attn.qkv
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return None
    width = len(layer.weight) // 3
    bias = layer.bias if bias_apart(attn) is None else bias_apart(attn)
    return F.linear(x, layer.weight[width:], None if bias is None else bias[width:])


def refuse_silent_qkv(attn: Any, name: str) -> None:
    """Refuse what stands in the place of a layer `qkv` of which timm reads the weight alone.

    Args:
        attn: timm's attention.
        name: What to call it.

    Raises:
        InputError: an adapter or the like, which would have no effect.
    """
    layer = getattr(attn, "qkv", None)
    if layer is None or getattr(attn, "q_bias", None) is None or attn.qkv_bias_separate:
        return
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise InputError(
            f"{name}.qkv is quantised or has no weight to read, and timm's own model does not run so: it reads that "
            f"layer's weight, and adds biases of its own. Set {name}.qkv_bias_separate = True, and that of every other "
            "block, with which timm runs the layer."
        )
    if type(layer).forward is not nn.Linear.forward or is_replaced(layer):
        raise InputError(
            f"{type(layer).__name__} stands in the place of {name}.qkv, and has no effect: timm reads that layer's "
            "weight alone, and adds biases of its own. Merge adapters into it (peft: model.merge_and_unload()), or "
            f"set {name}.qkv_bias_separate = True, with which timm runs the layer."
        )


def scaled(
    gamma: Float[Tensor, " d_model"] | None, x: Float[Tensor, "batch token *head d_model"]
) -> Float[Tensor, "batch token *head d_model"]:
    """What a block adds to the stream, behind its LayerScale if it has one."""
    return x if gamma is None else gamma * x
