"""Attention of groups as a single kernel: on a CUDA device with Triton, in half precision, without biases."""

from functools import cache, lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.layout import Layout, Rows
from caap_lab.models.attention import Attention

_WIDEST = 128
"""Largest width of a head: a program's tiles must fit into a multiprocessor's shared memory."""


class Tables(NamedTuple):
    """Lookup tables of the kernel."""

    order: Int[Tensor, " row"]
    groups: Int[Tensor, " row"]
    shown: UInt8[Tensor, "group token"]
    places: Int[Tensor, "group own"]
    inside: UInt8[Tensor, "group own"]


def fits(q: Float[Tensor, "image head row d_head"], attention: Attention) -> bool:
    """Whether the kernel can run: scores must be only scaled products."""
    kind = type(attention)
    plain = kind.scores is Attention.scores and kind.position_bias is Attention.position_bias
    half = q.dtype in (torch.float16, torch.bfloat16)
    return plain and half and q.is_cuda and q.shape[-1] <= _WIDEST and _kernel_runs(q.device)


@cache
def _kernel_runs(device: torch.device) -> bool:
    """Whether Triton is installed and compiles, which also needs a C compiler. Otherwise plain products are used."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from caap_lab.engine import kernel

        kernel.try_out(device)
    except Exception:  # whatever Triton raises if a part of it is missing
        return False
    return True


def attend_fused(
    q: Float[Tensor, "image head row d_head"],
    k: Float[Tensor, "image head place d_head"],
    v: Float[Tensor, "image head place d_head"],
    places: Int[Tensor, "group own"],
    rows: Rows,
    layout: Layout,
    blank: BlankRun,
    layer: int,
) -> Float[Tensor, "image head row d_head"]:
    """The attention output of each row; arguments as for `attend`, with exact attention."""
    from caap_lab.engine import kernel

    _, k_blank, v_blank = blank.qkv(layer)
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    tables = _tables(rows, layout, places, k_blank.shape[1])
    return kernel.attend(q, k, v, k_blank, v_blank, *tables, scale=blank.attention(layer).scale)


@lru_cache(maxsize=64)
def _tables(rows: Rows, layout: Layout, places: Int[Tensor, "group own"], n_tokens: int) -> Tables:
    """The tables of a layout, cached as long as the layout, so that they are the same objects each time."""
    groups, order = rows.group.sort(stable=True)
    replaced = layout.replaced[:, : places.shape[1]]
    shown = torch.ones(len(places), n_tokens + 1, device=places.device, dtype=torch.uint8).scatter_(1, replaced, 0)
    inside = (replaced < n_tokens).to(torch.uint8)
    return Tables(order.int(), groups.int(), shown[:, :n_tokens].contiguous(), places.int().contiguous(), inside)
