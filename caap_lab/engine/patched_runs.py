"""The CAAP engine: the score of every patch from live groups and one cached blank run.

A group belongs to one patch i. Its rows are the live prefix tokens (such as the class token) and, in the tail, the
patched tokens S_i. They read each other and the blank run's tokens outside S_i, whose keys and values never change:
that is the meaning of "clamped", and the reason why one cached blank run serves all patches at once.

    blocks start .. cutoff-2    only the prefix rows run; the keys and values of S_i are the source run's
    block  cutoff-1             S_i enter with the source's residual stream (q, k, v are the source's) and leave it live
    blocks cutoff .. L-1        the group evolves; in the last block only what the head reads

Up to block cutoff-2 nothing depends on the cutoff, so maps for several cutoffs share the prefix rows up to there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caap_lab.engine.attend import attend
from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.layout import Layout, Rows, layout
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.rows import take_rows
from caap_lab.engine.source import SourceRun
from caap_lab.models.attention import Attention
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def score_patches(
    model: HookedViT,
    blank: BlankRun,
    source: SourceRun,
    plan: CaapPlan,
    chunk_size: int,
) -> Float[Tensor, "cutoff image patch classes"]:
    """Logits of every patch's patched context, for "clamped", "dropped" and "frozen".

    Args:
        model: The model, without hooks.
        blank: The blank's run.
        source: The source images' run.
        plan: Blocks, context and approximations.
        chunk_size: Patches scored at once; if groups share rows (see `CaapPlan.tail`), rounded up to whole images.
    """
    n_patches = model.spec.n_patches
    whole_images = max(1, chunk_size // n_patches)
    size = n_patches if chunk_size >= n_patches or plan.tail != "exact" else chunk_size
    parts = []
    for image in range(0, source.n_images, whole_images):
        images = slice(image, min(image + whole_images, source.n_images))
        scores = []
        for first in range(0, n_patches, size):
            last = min(first + size, n_patches)
            groups = layout(model.spec, plan.neighbourhood, plan.tail, first, last, model.device)
            scores.append(score_groups(model, blank, source, images, plan, groups))
        parts.append(_joined(scores, dim=2))
    return _joined(parts, dim=1)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """Parts along an axis as one tensor; a single part is not copied."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def score_groups(
    model: HookedViT, blank: BlankRun, source: SourceRun, images: slice, plan: CaapPlan, groups: Layout
) -> Float[Tensor, "cutoff image group classes"]:
    """Logits of the patched contexts of any groups, all at once; arguments as for `score_patches`."""
    return _Chunk(model, blank, source, images, plan, groups).run()


Keys = Float[Tensor, "image head _ d_head"]
"""Keys, or values."""


@dataclass(frozen=True)
class _Chunk:
    """Groups of some images that are scored together, and everything that they read."""

    model: HookedViT
    blank: BlankRun
    source: SourceRun
    images: slice
    plan: CaapPlan
    layout: Layout

    @property
    def n_images(self) -> int:
        return self.images.stop - self.images.start

    def run(self) -> Float[Tensor, "cutoff image group classes"]:
        """Logits for every cutoff: the prefix rows run through the blocks once, with a separate tail at each cutoff."""
        plan, n_layers = self.plan, self.model.spec.n_layers
        x = self.blank.resid[plan.start][self.layout.prefix.tokens].expand(self.n_images, -1, -1)
        class_tokens = self._of_groups(self.blank.class_tokens(plan.start))
        layer, logits = plan.start, []
        for cutoff in plan.cutoffs:
            if cutoff <= plan.start:  # nothing is patched
                blank = self.model.unembed(self.blank.resid[-1][None], self.blank.class_tokens(n_layers))
                (of_cutoff,) = self._of_groups([blank])
            else:
                x, class_tokens = self._blocks(x, class_tokens, range(layer, cutoff - 1), cutoff)
                layer = cutoff - 1
                last, all_class_tokens = self._blocks(x, class_tokens, range(layer, n_layers), cutoff)
                of_cutoff = self.model.unembed(self._sequence(last), all_class_tokens)
            logits.append(of_cutoff.unflatten(0, (1, self.n_images, self.layout.n_groups)))
        return _joined(logits, dim=0)

    def _of_groups(self, rows: list[Tensor]) -> list[Float[Tensor, "sequence width"]]:
        """Rows of the blank, repeated for every group of every image."""
        return [row.expand(self.n_images * self.layout.n_groups, -1) for row in rows]

    def _blocks(
        self, x: Float[Tensor, "image row d_model"], class_tokens: list[Tensor], layers: range, cutoff: int
    ) -> tuple[Float[Tensor, "image leaving d_model"], list[Float[Tensor, "sequence d_model"]]]:
        """The rows leaving the last of some blocks, and the class tokens that the head reads so far."""
        n_rows, n_live = self.layout.n_prefix_rows, len(self.model.spec.live_prefix)
        return self.model.run_blocks(
            x,
            layers,
            class_tokens,
            step=partial(self._block, cutoff),
            class_token=lambda x: x[:, :n_rows:n_live].flatten(0, 1),
        )

    def _block(
        self, cutoff: int, layer: int, x: Float[Tensor, "image entering d_model"]
    ) -> Float[Tensor, "image leaving d_model"]:
        """The rows leaving one block: prefix rows up to the cutoff, all rows in the tail, where the patch rows join.

        In the last block only the prefix rows run, unless the head reads patches: patch rows only give keys and values.
        """
        groups, spec, block = self.layout, self.model.spec, self.model.architecture.block(layer)
        in_tail = self.plan.context == "clamped" and layer >= cutoff - 1
        rows = groups.live if in_tail and (layer < spec.n_layers - 1 or spec.reads_patches) else groups.prefix
        joins = layer == cutoff - 1 and rows is groups.live
        if not (x.shape[1] or joins):  # a model without prefix rows, before the cutoff
            return x
        normalized = block.norm1(x)
        q, k, v = self._project(block.attention, normalized, rows, layer)
        if joins:
            joining = groups.live.tokens[groups.n_prefix_rows :]
            source = self.source.heads("q", layer, self.images)[:, :, groups.span]
            q = torch.cat([q, take_rows(source, joining - groups.span.start)], dim=2)
            x = torch.cat([x, take_rows(self.source.whole_resid(layer)[self.images], joining)], dim=1)
            normalized = block.norm1(x)
        patched_tokens = _from_source if layer < cutoff else BEHIND_CUTOFF[self.plan.context]
        k, v, places = patched_tokens(self, layer, k, v)
        z = attend(q, k, v, places, rows, groups, self.blank, layer, self.plan.attention)
        n_rows = len(rows.tokens)
        return self.model.after_heads(layer, x[:, :n_rows], normalized[:, :n_rows], z)

    def _project(
        self, attention: Attention, normalized: Float[Tensor, "image entering d_model"], rows: Rows, layer: int
    ) -> tuple[Float[Tensor, "image head asking d_head"], Keys, Keys]:
        """Queries of the rows that run, and keys and values of the prefix rows, then of the patch rows."""
        n_prefix, tokens = self.layout.n_prefix_rows, self.layout.live.tokens
        if layer == self.plan.start:  # the prefix rows are still the blank's own
            q, k, v = (t[:, tokens[:n_prefix]].expand(self.n_images, -1, -1, -1) for t in self.blank.qkv(layer))
        else:
            n_moving = n_prefix if rows is self.layout.prefix else normalized.shape[1]
            q, k, v = attention.project_qkv(normalized[:, :n_moving], tokens[:n_moving])
        if q.shape[2] < normalized.shape[1]:
            k_patches, v_patches = attention.project_kv(
                normalized[:, n_prefix:], tokens[n_prefix : normalized.shape[1]]
            )
            k, v = torch.cat([k, k_patches], dim=2), torch.cat([v, v_patches], dim=2)
        return q, k, v

    def _sequence(self, x: Float[Tensor, "image row d_model"]) -> Float[Tensor, "sequence token d_model"]:
        """The input of the head: the prefix rows, or all tokens for a head that reads patches."""
        groups, spec, plan = self.layout, self.model.spec, self.plan
        n_live, n_prefix = len(spec.live_prefix), groups.n_prefix_rows
        prefix = x[:, :n_prefix].unflatten(1, (groups.n_groups, n_live))
        if not spec.reads_patches:
            return prefix.flatten(0, 1)
        whole = self.blank.resid[-1].repeat(self.n_images, groups.n_groups, 1, 1)
        whole[:, :, :n_live] = prefix
        if plan.context != "dropped":
            if plan.context == "frozen":
                rows = self.source.whole_resid(spec.n_layers)[self.images][:, groups.patches + spec.n_prefix]
            else:
                rows = groups.tail.contexts(x[:, n_prefix:])[:, groups.tail.reads]
            group, neighbour = groups.places
            whole[:, group, groups.patches[group, neighbour] + spec.n_prefix] = rows[:, group, neighbour]
        return whole.flatten(0, 1)


PatchedTokens = Callable[[_Chunk, int, Keys, Keys], tuple[Keys, Keys, Int[Tensor, "group own"]]]
"""Returns the keys and values of S_i in a block (paper eq 2) after those of the prefix rows, and the indices of each
group's own tokens. Its arguments are the block, and keys and values of the prefix rows, then of the patch rows."""


def _from_source(chunk: _Chunk, layer: int, k: Keys, v: Keys) -> tuple[Keys, Keys, Int[Tensor, "group own"]]:
    """The source run's keys and values for S_i."""
    n_prefix, span = chunk.layout.n_prefix_rows, chunk.layout.span
    source = chunk.source.keys_and_values(layer, chunk.images)
    k, v = (torch.cat([t[:, :, :n_prefix], own[:, :, span]], dim=2) for t, own in zip((k, v), source, strict=True))
    return k, v, chunk.layout.own_source


def _from_rows(chunk: _Chunk, layer: int, k: Keys, v: Keys) -> tuple[Keys, Keys, Int[Tensor, "group own"]]:
    """S_i are live: the keys and values of the group's rows, or of the rows that replace them."""
    n_prefix, tail = chunk.layout.n_prefix_rows, chunk.layout.tail
    if tail.weights is not None:
        k, v = (torch.cat([t[:, :, :n_prefix], tail.contexts(t[:, :, n_prefix:])], dim=2) for t in (k, v))
    return k, v, chunk.layout.own_tail


def _from_blank(chunk: _Chunk, layer: int, k: Keys, v: Keys) -> tuple[Keys, Keys, Int[Tensor, "group own"]]:
    """S_i are the blank's tokens again, which all rows read anyway: only the prefix tokens are a group's own."""
    return k, v, chunk.layout.own_prefix


BEHIND_CUTOFF: dict[str, PatchedTokens] = {"clamped": _from_rows, "frozen": _from_source, "dropped": _from_blank}
"""By context; up to the cutoff, all contexts read the source."""
