"""Rotary positions: queries and keys of patches are rotated by their positions, one pair of channels at a time.

In timm's notation a row x becomes x cos + rot(x) sin, where rot swaps the two channels of each pair and negates one of
them. Here the sign is included in the sine and the swap comes last, which is exact and reads the rows fewer times.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
    get_mixed_freqs,
    get_mixed_grid,
)
from torch import Tensor

ROTARY = (RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed, RotaryEmbeddingMRope)
"""timm's classes whose tables `RotaryTables` supports."""
_AT_ONCE = 400
"""Number of rows that a CPU rotates at once."""


@dataclass(frozen=True)
class Rotation:
    """How one block rotates queries and keys: by the same angles in all heads, or by angles per head."""

    cos: Float[Tensor, "*batch_and_head token d_head"]
    sin: Float[Tensor, "*batch_and_head token d_head"]
    """The factor of each channel before it is added to the other channel of its pair."""
    halves: bool
    """Whether pairs are channels i and i + d_head / 2, rather than neighbouring channels."""
    n_still: int
    """Number of leading rows whose angles are 0."""
    _of_rows: list[tuple[Tensor, int, "Rotation"]] = field(default_factory=list, repr=False, compare=False)

    def turn(self, x: Float[Tensor, "*batch token d_head"]) -> Float[Tensor, "*batch token d_head"]:
        """Rotated rows; bit-equal to timm's `apply_rot_embed_cat`."""
        turned = x * self.cos
        across = x[..., self.n_still :, :] * self.sin[..., self.n_still :, :]
        one, other = _pairs(turned.shape[-1], self.halves)
        turned[..., self.n_still :, one].add_(across[..., other])
        turned[..., self.n_still :, other].add_(across[..., one])
        return turned.to(x.dtype)

    def turn_(self, x: Float[Tensor, "*batch token d_head"]) -> Float[Tensor, "*batch token d_head"]:
        """Rotated rows, in place if the number formats allow it, without gradients; a few rows at a time.

        Allocating memory of the rows' size several times per block would cost more than the arithmetic.
        """
        if self.n_still == x.shape[-2]:
            return x
        if torch.is_grad_enabled() or torch.promote_types(x.dtype, self.cos.dtype) != x.dtype:
            return self.turn(x)
        one, other = _pairs(x.shape[-1], self.halves)
        step = _AT_ONCE if x.is_cpu else x.shape[-2]
        for first in range(self.n_still, x.shape[-2], step):
            rows = x[..., first : first + step, :]
            across = rows * self.sin[..., first : first + step, :]
            rows.mul_(self.cos[..., first : first + step, :])
            rows[..., one].add_(across[..., other])
            rows[..., other].add_(across[..., one])
        return x

    def pull_back(self, slope: Float[Tensor, "*batch token d_head"]) -> Float[Tensor, "*batch token d_head"]:
        """The gradient at the rows before rotation, from the gradient at rotated rows: the transposed map."""
        one, other = _pairs(slope.shape[-1], self.halves)
        swapped = torch.empty_like(slope)
        swapped[..., one], swapped[..., other] = slope[..., other], slope[..., one]
        return slope * self.cos + swapped * self.sin

    def turn_back(self, turned: Float[Tensor, "*batch token d_head"]) -> Float[Tensor, "*batch token d_head"]:
        """The rows before rotation; cos^2 + sin^2 is 1 up to the rounding of the table."""
        return self.pull_back(turned) / (self.cos.square() + self.sin.square())

    def of_rows(self, tokens: Int[Tensor, " row"] | Int[Tensor, "batch row"] | None) -> "Rotation":
        """The rotation of the rows of some tokens, the same for all images or per image; None for all, in order."""
        if tokens is None:
            return self
        alike = self.cos.ndim == 2 and tokens.ndim == 1
        if alike:  # all blocks of a model ask for the same rows in turn
            for kept, version, rotation in self._of_rows:
                same = kept.data_ptr() == tokens.data_ptr() and kept.stride() == tokens.stride()
                if same and kept.shape == tokens.shape and version == _version(tokens):
                    return rotation
        cos, sin = (_rows(table, tokens) for table in (self.cos, self.sin))
        rotation = Rotation(cos, sin, self.halves, _n_still(tokens, self.n_still) if alike else 0)
        if alike and _version(tokens) is not None:
            self._of_rows[:] = [*self._of_rows[-3:], (tokens, tokens._version, rotation)]
        return rotation


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _n_still(tokens: Int[Tensor, " row"], n_prefix: int) -> int:
    """Number of leading rows that are prefix tokens."""
    patches = (tokens >= n_prefix).nonzero()
    return int(patches[0]) if len(patches) else len(tokens)


def _pairs(width: int, halves: bool) -> tuple[slice, slice]:
    """The first and the second channels of all pairs."""
    return (slice(width // 2), slice(width // 2, None)) if halves else (slice(None, None, 2), slice(1, None, 2))


def _rows(table: Tensor, tokens: Tensor) -> Tensor:
    if tokens.ndim == 1:
        return table.index_select(-2, tokens)
    chosen = table[..., tokens, :]  # [image, row, d_head], or with a leading head axis
    return chosen[:, None] if chosen.ndim == 3 else chosen.transpose(0, 1)


class RotaryTables:
    """Rotations of all blocks of one timm model, computed when first needed and again when their inputs change.

    With trainable frequencies (mixed rotary positions) and gradients enabled, a block's table is recomputed each time,
    so that gradients reach them.
    """

    def __init__(self) -> None:
        self._state: Any = None
        self._made_of: list[Tensor] = []
        self._table: Tensor | None = None
        self._rotations: dict[int, Rotation] = {}

    def keep(self, vit: Any, table: Tensor | None) -> None:
        """Use the table that timm has just computed for images."""
        if table is None:
            return
        if table.is_inference():  # which a later run with gradients could not use
            with torch.inference_mode(False):
                table = table.clone()
        self._made_of = [tensor.detach() for tensor in _made_of(vit)]
        self._state, self._table, self._rotations = _state(vit), table.detach(), {}

    def of_block(self, vit: Any, layer: int) -> Rotation | None:
        """The rotation of a block; None if the model has no rotary positions."""
        rope = vit.rope
        if rope is None:
            return None
        halves = bool(getattr(vit.blocks[layer].attn, "rotate_half", False))
        if vit.rope_mixed and rope.freqs.requires_grad and torch.is_grad_enabled():
            return _rotation(_mixed_table(vit, layer), vit.num_prefix_tokens, halves)
        if self._table is None or self._state != _state(vit):
            with torch.inference_mode(False), torch.no_grad():
                self.keep(vit, _table(vit))
        if layer not in self._rotations:
            assert self._table is not None
            table = self._table[layer] if vit.rope_mixed else self._table
            same = None if vit.rope_mixed else next(iter(self._rotations.values()), None)
            if same is None or same.halves != halves:
                with torch.inference_mode(False), torch.no_grad():
                    same = _rotation(table, vit.num_prefix_tokens, halves)
            self._rotations[layer] = same
        return self._rotations[layer]


def _rotation(table: Float[Tensor, "*head patch sin_cos"], n_prefix: int, halves: bool) -> Rotation:
    """A rotation from timm's table of patches; angles of prefix tokens are 0."""
    sin, cos = table.chunk(2, dim=-1)
    one, other = _pairs(sin.shape[-1], halves)
    across = torch.empty_like(sin)
    across[..., one], across[..., other] = sin[..., other], -sin[..., one]
    still = sin.new_zeros(*sin.shape[:-2], n_prefix, sin.shape[-1])
    return Rotation(torch.cat([still + 1, cos], dim=-2), torch.cat([still, across], dim=-2), halves, n_prefix)


def _table(vit: Any) -> Tensor:
    """Timm's sines and cosines of all patches, and of all blocks and heads if these have their own."""
    # timm stores none for a model with dynamic sizes and for some classes.
    by_shape = vit.dynamic_img_size or not hasattr(vit.rope, "feat_shape")
    return vit.rope.get_embed(shape=vit.patch_embed.grid_size) if by_shape else vit.rope.get_embed()


def _mixed_table(vit: Any, layer: int) -> Float[Tensor, "head patch sin_cos"]:
    """The part of that table for one block, by timm's own function."""
    rope = vit.rope
    t_x, t_y = rope.t_x, rope.t_y
    if vit.dynamic_img_size or t_x is None:
        t_x, t_y = get_mixed_grid(vit.patch_embed.grid_size, rope.grid_indexing, rope.freqs.device)
    return get_mixed_freqs(rope.freqs[:, layer], t_x, t_y)


def _made_of(vit: Any) -> list[Tensor]:
    return [*vit.rope.parameters(), *vit.rope.buffers()]


def _state(vit: Any) -> Any:
    """A value that changes with the table. `keep` holds the tensors, so that their addresses are not reused."""
    tensors = [
        (t.data_ptr(), None if t.is_inference() else t._version, t.dtype, t.device, t.shape) for t in _made_of(vit)
    ]
    return id(vit.rope), tuple(vit.patch_embed.grid_size), vit.num_prefix_tokens, vit.dynamic_img_size, tensors
