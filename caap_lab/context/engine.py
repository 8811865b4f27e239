"""The CAAP engine: every patch's score from live groups against one cached blank run.

A group belongs to one patch i. Its rows are the live prefix tokens (the class token and its like) and, in the tail, the
patched tokens S_i. They read each other and the blank run's tokens outside S_i, whose keys and values never change:
that is what "clamped" means, and why one cached blank run serves all patches at once.

    blocks start .. cutoff-2    only the class rows move; S_i's keys and values are the source run's
    block  cutoff-1             S_i enter with the source's residual stream (q, k, v are the source's) and leave it live
    blocks cutoff .. L-1        the group evolves

Up to block cutoff-2 nothing depends on the cutoff, so maps for several cutoffs share the class rows' way there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor

from caap_lab.context.blanks import BlankRun
from caap_lab.context.source import SourceRun
from caap_lab.hooked.block import attention_of, attention_output, project_qkv
from caap_lab.hooked.model import HookedViT

MASKED = -1e30
"""Score of a key that is not there; finite, so that a row without any key of one kind gives weight 0 and not NaN."""

Partial = tuple[Tensor, Tensor, Tensor]
"""Part of a softmax-weighted sum: its largest score, the sum of exp(score - largest), and that sum weighted by v."""


@dataclass(frozen=True)
class Groups:
    """The patches that are scored together."""

    image: Int[Tensor, " group"]
    """Image of the batch."""
    patches: Int[Tensor, "group neighbour"]
    """Patch numbers of S_i, the patch itself first; clipped neighbours repeat patch 0 and are masked."""
    inside: Bool[Tensor, "group neighbour"]
    """False where the neighbourhood is clipped by the border."""

    def part(self, rows: slice) -> "Groups":
        """Some of the groups."""
        return Groups(self.image[rows], self.patches[rows], self.inside[rows])


@dataclass(frozen=True)
class Plan:
    """What the engine computes; checked by `caap`."""

    start: int
    cutoffs: tuple[int, ...]
    """Rising; all maps but the first share its blocks up to their own cutoff."""
    context: str
    attention: str
    tail: str


@torch.no_grad()
def score_patches(
    model: HookedViT,
    blank: BlankRun,
    source: SourceRun,
    table: Int[Tensor, "patch neighbour"],
    plan: Plan,
    chunk_size: int,
) -> Float[Tensor, "cutoff image patch classes"]:
    """Logits of every patch's patched context, for "clamped", "dropped" and "frozen".

    Args:
        model: The model, without hooks.
        blank: The blank's run.
        source: The source images' run.
        table: Neighbourhood of every patch, from `neighbourhood_table`.
        plan: Blocks, context and approximations.
        chunk_size: Patches scored at once; with `tail="shared"`, rounded up to whole images.
    """
    n_images, n_patches = source.n_images, len(table)
    groups = Groups(
        image=torch.arange(n_images, device=model.device).repeat_interleave(n_patches),
        patches=table.clamp(min=0).to(model.device).repeat(n_images, 1),
        inside=(table >= 0).to(model.device).repeat(n_images, 1),
    )
    if plan.tail == "shared":  # neighbouring groups read each other, so an image's groups move together
        chunk_size = max(1, chunk_size // n_patches) * n_patches
    parts = [
        _run_groups(model, _Chunk(blank, source, groups.part(slice(first, first + chunk_size)), plan, n_patches))
        for first in range(0, n_images * n_patches, chunk_size)
    ]
    return torch.cat(parts, dim=1).unflatten(1, (n_images, n_patches))


@dataclass(frozen=True)
class _Chunk:
    """Some groups and all that they read."""

    blank: BlankRun
    source: SourceRun
    groups: Groups
    plan: Plan
    n_patches: int

    @cached_property
    def rows(self) -> Int[Tensor, "group row"]:
        """Patches that are live in the tail."""
        return self.groups.patches if self.plan.tail == "exact" else self.groups.patches[:, :1]

    @cached_property
    def positions(self) -> Int[Tensor, "group position"]:
        """Token numbers of the live rows."""
        spec = self.blank.model.spec
        prefix_tokens = torch.arange(len(spec.live_prefix), device=self.rows.device).expand(len(self.rows), -1)
        return torch.cat([prefix_tokens, self.rows + spec.n_prefix], dim=1)

    @cached_property
    def hidden(self) -> Bool[Tensor, "group background"]:
        """Which background tokens a group's S_i stand in for."""
        spec, groups = self.blank.model.spec, self.groups
        n_background = spec.n_tokens - len(spec.live_prefix)
        n_registers = n_background - spec.n_patches
        hidden = torch.zeros(len(groups.image), n_background, dtype=torch.bool, device=groups.image.device)
        group, _ = groups.inside.nonzero(as_tuple=True)
        hidden[group, groups.patches[groups.inside] + n_registers] = True
        return hidden


def _run_groups(model: HookedViT, chunk: _Chunk) -> Float[Tensor, "cutoff group classes"]:
    """The class rows go through the blocks once; at each cutoff, a copy of them goes on into a tail of its own."""
    spec, plan, blank = model.spec, chunk.plan, chunk.blank
    n_live, n_groups = len(spec.live_prefix), len(chunk.rows)
    x = blank.resid[plan.start][:n_live].expand(n_groups, -1, -1)
    class_tokens = [resid[:1].expand(n_groups, -1) for resid in _class_layers(model, blank.resid[1 : plan.start + 1])]
    layer, found = plan.start, []
    for cutoff in plan.cutoffs:
        if cutoff <= plan.start:  # nothing is patched
            tokens = [resid[:1] for resid in _class_layers(model, blank.resid[1:-1])]
            found.append(model.unembed(blank.resid[-1][None], tokens).expand(n_groups, -1))
            continue
        x, class_tokens = _run_blocks(model, chunk, x, class_tokens, range(layer, cutoff - 1), cutoff)
        layer = cutoff - 1
        last, all_tokens = _run_blocks(model, chunk, x, class_tokens, range(layer, spec.n_layers), cutoff)
        if spec.reads_patches:
            last = _whole_sequence(chunk, last)
        found.append(model.unembed(last, all_tokens))
    return torch.stack(found)


def _run_blocks(
    model: HookedViT,
    chunk: _Chunk,
    x: Float[Tensor, "group row d_model"],
    class_tokens: list[Tensor],
    layers: range,
    cutoff: int,
) -> tuple[Float[Tensor, "group leaving d_model"], list[Tensor]]:
    """The live rows leaving the last of some blocks, and the class tokens that the head reads so far."""
    spec, plan, source, groups = model.spec, chunk.plan, chunk.source, chunk.groups
    n_live, class_tokens = len(spec.live_prefix), list(class_tokens)
    for layer in layers:
        block = model.block(layer)
        entering = plan.context == "clamped" and layer == cutoff - 1
        in_tail = plan.context == "clamped" and layer >= cutoff
        if entering:
            x = torch.cat([x, source.resid(layer, groups.image, chunk.rows)], dim=1)
        if x.shape[1]:
            normalized = block.norm1(x)
            if in_tail:
                q, k, v = project_qkv(attention_of(block), normalized)
                patched = _tail_keys(plan.tail, k[:, :, n_live:], v[:, :, n_live:], groups, chunk.n_patches)
                k, v = k[:, :, :n_live], v[:, :, :n_live]
            else:
                q, k, v = project_qkv(attention_of(block), normalized[:, :n_live])
                if entering:
                    q = torch.cat([q, source.heads("q", layer, groups.image, chunk.rows)], dim=2)
                patched = None
                if plan.context == "frozen" or layer < cutoff:
                    k_source, v_source = (
                        source.heads(name, layer, groups.image, groups.patches) for name in ("k", "v")
                    )
                    patched = (k_source, v_source)
            if layer == spec.n_layers - 1 and not spec.reads_patches:  # the head reads the class rows only
                x, normalized, q = x[:, :n_live], normalized[:, :n_live], q[:, :, :n_live]
            x = _finish(block, x, normalized, _attend(q, k, v, patched, chunk, layer))
        if model.reads_class_token(layer):
            class_tokens.append(x[:, 0])
    return x, class_tokens


def _attend(
    q: Float[Tensor, "group head row d_head"],
    k: Float[Tensor, "group head live d_head"],
    v: Float[Tensor, "group head live d_head"],
    patched: Sequence[Tensor] | None,
    chunk: _Chunk,
    layer: int,
) -> Float[Tensor, "group head row d_head"]:
    """Paper eq 7: one softmax over the group's own rows, the patched tokens, and the blank tokens outside S_i."""
    blank, groups, attention = chunk.blank, chunk.groups, chunk.plan.attention
    q = q.transpose(0, 1) * attention_of(blank.model.block(layer)).scale
    parts = []
    if k.shape[2]:
        parts.append(_partial(q, k, v))
    if patched is not None:
        parts.append(_partial(q, patched[0], patched[1], groups.inside))
    if attention == "exact":
        parts.append(_blank_exact(q, None if patched is None else chunk.hidden, blank, layer))
    else:
        positions = chunk.positions[:, : q.shape[2]]
        parts.append(_blank_cached(positions, groups, blank, layer, attention == "cached"))
    return _merge(parts).to(v.dtype).transpose(0, 1)


def _partial(
    q: Float[Tensor, "head group row d_head"],
    k: Float[Tensor, "group head key d_head"],
    v: Float[Tensor, "group head key d_head"],
    there: Bool[Tensor, "group key"] | None = None,
) -> Partial:
    """Each group's rows against its own keys; in fp32 at least, whatever the model's format."""
    scores = q @ k.permute(1, 0, 3, 2)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if there is not None:
        scores = scores.masked_fill(~there[:, None], MASKED)
    largest = scores.amax(dim=-1, keepdim=True)
    weights = (scores - largest).exp_()
    return largest, weights.sum(dim=-1, keepdim=True), weights.to(v.dtype) @ v.transpose(0, 1)


def _merge(parts: Sequence[Partial]) -> Float[Tensor, "head group row d_head"]:
    largest = torch.stack([part[0] for part in parts]).amax(dim=0)
    scales = [(part[0] - largest).exp() for part in parts]
    total = sum(part[1] * scale for part, scale in zip(parts, scales, strict=True))
    return sum(part[2] * scale for part, scale in zip(parts, scales, strict=True)) / total  # type: ignore[return-value]


def _blank_exact(
    q: Float[Tensor, "head group row d_head"],
    hidden: Bool[Tensor, "group background"] | None,
    blank: BlankRun,
    layer: int,
) -> Partial:
    """All groups' rows against the blank's keys in one product; S_i's blank tokens hidden."""
    _, k, v = blank.qkv(layer)
    heads, groups, rows, width = q.shape
    background = blank.background
    k, v = k[:, background], v[:, background]
    scores = (q.reshape(heads, -1, width) @ k.transpose(1, 2)).view(heads, groups, rows, -1)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if hidden is not None:
        scores.masked_fill_(hidden[:, None], MASKED)
    largest = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    weighted = (weights.view(heads, groups * rows, -1).to(v.dtype) @ v).view(heads, groups, rows, width)
    return largest, weights.sum(dim=-1, keepdim=True), weighted


def _blank_cached(
    positions: Int[Tensor, "group row"], groups: Groups, blank: BlankRun, layer: int, subtract: bool
) -> Partial:
    """E-CAAP (paper appendix B.1, eqs 8 and 9): the blank's attention as the blank's own query at this position had it.

    With `subtract`, the terms of S_i's blank tokens are taken out; the paper's single constant leaves them in.
    """
    log_z, mean_v = (constant[:, positions] for constant in blank.constants(layer))
    ones = torch.ones_like(log_z)[..., None]
    if not subtract:
        return log_z[..., None], ones, mean_v
    q, k, v = blank.qkv(layer)
    tokens = groups.patches + blank.model.spec.n_prefix
    scores = (q[:, positions] * attention_of(blank.model.block(layer)).scale) @ k[:, tokens].transpose(-2, -1)
    share = (scores.to(log_z.dtype) - log_z[..., None]).exp() * groups.inside[:, None]
    rest = (ones - share.sum(dim=-1, keepdim=True)).clamp(min=0)
    return log_z[..., None], rest, mean_v - share.to(v.dtype) @ v[:, tokens]


def _finish(block: Block, x: Tensor, normalized: Tensor, z: Tensor) -> Float[Tensor, "group row d_model"]:
    x = x + block.ls1(attention_output(attention_of(block), z, normalized))
    return x + block.ls2(block.mlp(block.norm2(x)))


def _tail_keys(tail: str, k: Tensor, v: Tensor, groups: Groups, n_patches: int) -> tuple[Tensor, Tensor]:
    """Keys and values of S_i after the cutoff: the group's own rows, or each neighbour's centre lent by its group."""
    if tail == "exact":
        return k, v
    return tuple(_lend(t[:, :, 0], groups, n_patches).transpose(1, 2) for t in (k, v))  # type: ignore[return-value]


def _lend(
    centre: Float[Tensor, "group *rest"], groups: Groups, n_patches: int
) -> Float[Tensor, "group neighbour *rest"]:
    """Every group's neighbours' centre rows."""
    first = (groups.image - groups.image[0]) * n_patches
    return centre[first[:, None] + groups.patches]


def _whole_sequence(chunk: _Chunk, x: Tensor) -> Float[Tensor, "group token d_model"]:
    """Last residual stream of all tokens, for a head that reads patches: the blank's, with the live rows put in."""
    groups, plan, spec = chunk.groups, chunk.plan, chunk.blank.model.spec
    n_live = len(spec.live_prefix)
    whole = chunk.blank.resid[-1].expand(len(x), -1, -1).clone()
    whole[:, :n_live] = x[:, :n_live]
    if plan.context == "frozen":
        rows = chunk.source.resid(spec.n_layers, groups.image, groups.patches)
    elif plan.context == "dropped":
        return whole
    else:
        rows = x[:, n_live:] if plan.tail == "exact" else _lend(x[:, n_live], groups, chunk.n_patches)
    group, neighbour = groups.inside.nonzero(as_tuple=True)
    whole[group, groups.patches[group, neighbour] + spec.n_prefix] = rows[group, neighbour]
    return whole


def _class_layers(model: HookedViT, leaving: Sequence[Tensor]) -> list[Tensor]:
    """Of the residual streams leaving blocks 0, 1, ..., those whose class token the head reads."""
    return [resid for layer, resid in enumerate(leaving) if model.reads_class_token(layer)]
