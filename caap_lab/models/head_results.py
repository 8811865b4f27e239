"""The contribution of each head to the output of timm's attention modules, with the scale of norms held fixed."""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.layers import LayerNorm, LayerNormFp32, RmsNorm, RmsNormFp32
from torch import Tensor, nn

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import widened

NORMS = (nn.LayerNorm, nn.RMSNorm, LayerNorm, LayerNormFp32, RmsNorm, RmsNormFp32)
"""Norms over the last axis: a scale per token, weights, and perhaps a bias."""


def is_norm(module: nn.Module) -> bool:
    """True if a module's forward is that of one of `NORMS`."""
    return not is_replaced(module) and any(type(module).forward is kind.forward for kind in NORMS)


def frozen_norm(
    norm: nn.Module, x: Float[Tensor, "*batch width"]
) -> Callable[[Float[Tensor, "..."]], Float[Tensor, "..."]]:
    """The linear map of a norm with its scale held fixed at x: norm(x) is the map's value at x plus the norm's bias.

    Subtracting the mean is linear; only the division by the standard deviation (or root mean square) is frozen.

    Args:
        norm: One of `NORMS`, or an Identity.
        x: Input at which the scale is computed.

    Raises:
        InputError: `norm` is of another kind.
    """
    if type(norm) is nn.Identity:
        return lambda part: part
    if not is_norm(norm):
        raise InputError(f"{type(norm).__name__} is not a norm with a known scale; LayerNorm and RMSNorm are.")
    known = cast(Any, norm)
    centred = isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        wide = widened(x)
        eps = torch.finfo(x.dtype).eps if known.eps is None else known.eps  # torch's RMSNorm uses the format's eps
        square = wide.var(-1, keepdim=True, unbiased=False) if centred else wide.square().mean(-1, keepdim=True)
        size = (square + eps).sqrt()

    def apply(part: Tensor) -> Tensor:
        own = part.to(size.dtype)
        scaled = (own - own.mean(-1, keepdim=True) if centred else own) / size
        return (scaled if known.weight is None else scaled * known.weight).to(part.dtype)

    return apply


def head_results(
    attn: Any, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch token head d_model"]:
    """The contribution of each head to the output of timm's attention, through its norm, gate and projection.

    Args:
        attn: timm's module; its norm, whose scale is held fixed, and its gate may be missing.
        z: Outputs of the heads.
        x: Input of attention, which a gate reads.
    """
    norm, gate = getattr(attn, "norm", None), getattr(attn, "gate", None)
    norm = None if type(norm) is nn.Identity else norm
    proj, heads = attn.proj, z.shape[1]
    plain = type(proj).forward is nn.Linear.forward and not is_replaced(proj)
    if norm is None and gate is None and plain:
        return torch.einsum("bhtk,dhk->bthd", z, proj.weight.unflatten(1, (heads, -1)))
    joined = z.transpose(1, 2)
    each = torch.eye(heads, dtype=z.dtype, device=z.device)[:, :, None]
    alone = (joined[:, :, None] * each).flatten(3)
    if norm is not None:  # a norm over all heads: its mean mixes each head into the channels of the others
        alone = frozen_norm(norm, joined.flatten(2)[:, :, None])(alone)
    if gate is not None:
        alone = alone * gate(x).sigmoid()[:, :, None]
    if plain:
        return alone @ proj.weight.T
    return proj(alone) - proj(alone.new_zeros(1, 1, 1, alone.shape[-1]))  # adapters, or a custom class
