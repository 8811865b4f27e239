"""What timm's Beit and Eva share: biases of q, k and v that are not in their layer, and LayerScale as parameters."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.watched import is_watched


def bias_apart(attn: Any) -> Float[Tensor, " d_qkv"] | None:
    """The bias of queries, keys and values if it is not a parameter of the layer that projects them."""
    if getattr(attn, "q_bias", None) is None:
        return None
    return torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))


def qkv_product(attn: Any, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_qkv"]:
    """Queries, keys and values in one tensor, with biases added as in timm."""
    bias = bias_apart(attn)
    if bias is None:
        return attn.qkv(x)
    if attn.qkv_bias_separate or is_watched(attn.qkv):  # a torch hook on the layer runs, as on any other layer
        return attn.qkv(x) + bias
    return F.linear(x, attn.qkv.weight, bias)


def kv_product(attn: Any, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_kv"] | None:
    """Only keys and values: two thirds of the product; None if the layer was replaced."""
    layer = attn.qkv
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return None
    width = len(layer.weight) // 3
    bias = layer.bias if bias_apart(attn) is None else bias_apart(attn)
    return F.linear(x, layer.weight[width:], None if bias is None else bias[width:])


def refuse_silent_qkv(attn: Any, name: str) -> None:
    """Raise InputError if a layer `qkv` of which timm only reads the weight was replaced.

    Args:
        attn: timm's attention.
        name: Its name in messages.

    Raises:
        InputError: it was, for example by an adapter, which would have no effect.
    """
    layer = getattr(attn, "qkv", None)
    if layer is None or getattr(attn, "q_bias", None) is None or attn.qkv_bias_separate:
        return
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise InputError(
            f"{name}.qkv is quantised or has no weight, but timm's model reads that layer's weight and adds separate "
            f"biases. Set {name}.qkv_bias_separate = True, and that of every other block, so that timm runs the "
            "layer."
        )
    if type(layer).forward is not nn.Linear.forward or is_replaced(layer):
        raise InputError(
            f"{type(layer).__name__} replaces {name}.qkv but has no effect: timm reads only that layer's weight and "
            "adds separate biases. Merge adapters into it (peft: model.merge_and_unload()), or set "
            f"{name}.qkv_bias_separate = True, so that timm runs the layer."
        )


def scaled(
    gamma: Float[Tensor, " d_model"] | None, x: Float[Tensor, "batch token *head d_model"]
) -> Float[Tensor, "batch token *head d_model"]:
    """The contribution of a block to the residual stream, after LayerScale if it has one."""
    return x if gamma is None else gamma * x
