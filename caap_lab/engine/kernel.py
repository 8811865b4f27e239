"""Attention of all groups' rows in one Triton kernel, for CUDA devices: no score is ever written to memory.

A program handles some rows, ordered by group, of one head and image. It iterates over the blank's tokens, of which each
row skips those that its group replaces, and then over the own tokens of its rows' groups, with the softmax of flash
attention (Dao et al. 2022, arXiv 2205.14135): a running maximum and sum, in float32.
"""

from contextlib import nullcontext
from math import e, log2

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, KEYS = 64, 64
"""Size of a program's tile."""


@triton.jit
def _step(q, k, v, seen, best, total, read, scale):
    """One tile of keys: updates the running maximum, the sum of weights, and the weighted sum of values."""
    scores = tl.where(seen, tl.dot(q, k) * scale, -1e30)
    now = tl.maximum(best, tl.max(scores, 1))
    weights = tl.where(seen, tl.exp2(scores - now[:, None]), 0.0)
    shrink = tl.exp2(best - now)
    read = read * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
    return now, total * shrink + tl.sum(weights, 1), read


@triton.jit
def _attend(
    q, k_own, v_own, k_blank, v_blank, z, order, groups, shown, places, inside, n_rows, n_tokens, scale,
    q_image, q_head, q_row, k_image, k_head, k_row, v_image, v_head, v_row, blank_head, z_image, z_head, z_row,
    HEADS: tl.constexpr, OWN: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    image, head = (tl.program_id(1) // HEADS).to(tl.int64), tl.program_id(1) % HEADS
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = at < n_rows
    row = tl.load(order + at, mask=there, other=0)
    group = tl.load(groups + at, mask=there, other=0)
    first = tl.min(tl.where(there, group, 2147483647), 0) * OWN
    last = (tl.max(group, 0) + 1) * OWN
    channel = tl.arange(0, PADDED)
    wide = channel < WIDTH
    asked = tl.load(
        q + image * q_image + head * q_head + row[:, None] * q_row + channel[None, :],
        mask=there[:, None] & wide[None, :],
        other=0.0,
    )
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    read = tl.zeros([ROWS, PADDED], tl.float32)
    for start in range(0, n_tokens, KEYS):
        token = start + tl.arange(0, KEYS)
        known = token < n_tokens
        place = head * blank_head + token * WIDTH
        k = tl.load(k_blank + place[None, :] + channel[:, None], mask=wide[:, None] & known[None, :], other=0.0)
        v = tl.load(v_blank + place[:, None] + channel[None, :], mask=known[:, None] & wide[None, :], other=0.0)
        seen = tl.load(shown + group[:, None] * n_tokens + token[None, :], mask=known[None, :], other=0) != 0
        best, total, read = _step(asked, k, v, seen, best, total, read, scale)
    k_own += image * k_image + head * k_head
    v_own += image * v_image + head * v_head
    for start in range(first, last, KEYS):
        own = start + tl.arange(0, KEYS)
        known = own < last
        place = tl.load(places + own, mask=known, other=0)
        k = tl.load(k_own + place[None, :] * k_row + channel[:, None], mask=wide[:, None] & known[None, :], other=0.0)
        v = tl.load(v_own + place[:, None] * v_row + channel[None, :], mask=known[:, None] & wide[None, :], other=0.0)
        used = tl.load(inside + own, mask=known, other=0) != 0
        seen = (group[:, None] == (own // OWN)[None, :]) & used[None, :]
        best, total, read = _step(asked, k, v, seen, best, total, read, scale)
    tl.store(
        z + image * z_image + head * z_head + row[:, None] * z_row + channel[None, :],
        (read / total[:, None]).to(z.dtype.element_ty),
        mask=there[:, None] & wide[None, :],
    )


def attend(
    q: Tensor,
    k_own: Tensor,
    v_own: Tensor,
    k_blank: Tensor,
    v_blank: Tensor,
    order: Tensor,
    groups: Tensor,
    shown: Tensor,
    places: Tensor,
    inside: Tensor,
    scale: float,
) -> Tensor:
    """The attention output of each row, [image, head, row, d_head].

    Args:
        q: Queries [image, head, row, d_head]; the last axis of all tensors must be contiguous.
        k_own: Keys [image, head, place, d_head], indexed by `places`.
        v_own: Their values.
        k_blank: The blank's keys [head, token, d_head], contiguous.
        v_blank: Their values.
        order: Rows, ordered by group.
        groups: Group of each of these.
        shown: [group, token], 1 if the group reads the blank's token.
        places: [group, own], indices of each group's own tokens.
        inside: [group, own], 0 if there is no such token.
        scale: Factor by which q . k is multiplied.
    """
    images, heads, n_rows, width = q.shape
    z = torch.empty(images, n_rows, heads, width, device=q.device, dtype=q.dtype).transpose(1, 2)
    strides = [stride for t in (q, k_own, v_own) for stride in t.stride()[:3]]
    tiles = (triton.cdiv(n_rows, ROWS), images * heads)
    with torch.cuda.device(q.device) if q.is_cuda else nullcontext():  # Triton runs on the current device
        _attend[tiles](
            q, k_own, v_own, k_blank, v_blank, z, order, groups, shown, places, inside, n_rows, k_blank.shape[1],
            scale * log2(e), *strides, k_blank.stride(0), *z.stride()[:3],
            HEADS=heads, OWN=places.shape[1], WIDTH=width, PADDED=max(16, triton.next_power_of_2(width)),
            ROWS=ROWS, KEYS=KEYS,
        )  # fmt: skip
    return z


def try_out(device: torch.device) -> None:
    """Compile the kernel by running it on tiny tensors; passes on Triton's errors."""
    one = torch.ones(1, 1, 1, 16, device=device, dtype=torch.bfloat16)
    index = torch.zeros(1, 1, device=device, dtype=torch.int32)
    byte = index.to(torch.uint8)
    attend(one, one, one, one[0], one[0], index[0], index[0], byte, index, byte + 1, scale=1.0)
