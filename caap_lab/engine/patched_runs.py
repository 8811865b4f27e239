"""The CAAP engine: every patch's score from live groups against one cached blank run.

A group belongs to one patch i. Its rows are the live prefix tokens (the class token and its like) and, in the tail, the
patched tokens S_i. They read each other and the blank run's tokens outside S_i, whose keys and values never change:
that is what "clamped" means, and why one cached blank run serves all patches at once.

    blocks start .. cutoff-2    only the prefix rows move; S_i's keys and values are the source run's
    block  cutoff-1             S_i enter with the source's residual stream (q, k, v are the source's) and leave it live
    blocks cutoff .. L-1        the group evolves; in the last block only what the head reads

Up to block cutoff-2 nothing depends on the cutoff, so maps for several cutoffs share the prefix rows' way there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor

from caap_lab.engine.attend import attend
from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.layout import Layout, Rows, layout
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.source import SourceRun, project_kv
from caap_lab.models.block import attention_of, attention_output, project_qkv
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
        chunk_size: Patches scored at once; where groups lend to each other (see `CaapPlan.tail`), rounded up to whole
            images.
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
            scores.append(_Chunk(model, blank, source, images, plan, groups).run())
        parts.append(torch.cat(scores, dim=2))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class _Chunk:
    """Groups of some images that are scored together, and all that they read."""

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
        """Logits for every cutoff: the prefix rows go through the blocks once, with a tail of their own at each."""
        plan, spec, blank = self.plan, self.model.spec, self.blank
        n_groups = self.layout.n_groups
        x = blank.resid[plan.start][self.layout.prefix.tokens].expand(self.n_images, -1, -1)
        leaving = _class_layers(self.model, blank.resid[1 : plan.start + 1])
        class_tokens = [resid[:1].expand(self.n_images * n_groups, -1) for resid in leaving]
        layer, found = plan.start, []
        for cutoff in plan.cutoffs:
            if cutoff <= plan.start:  # nothing is patched
                tokens = [resid[:1] for resid in _class_layers(self.model, blank.resid[1:-1])]
                logits = self.model.unembed(blank.resid[-1][None], tokens).expand(self.n_images * n_groups, -1)
            else:
                x, class_tokens = self._blocks(x, class_tokens, range(layer, cutoff - 1), cutoff)
                layer = cutoff - 1
                last, all_tokens = self._blocks(x, class_tokens, range(layer, spec.n_layers), cutoff)
                logits = self.model.unembed(self._sequence(last), all_tokens)
            found.append(logits.unflatten(0, (self.n_images, n_groups)))
        return torch.stack(found)

    def _blocks(
        self, x: Float[Tensor, "image row d_model"], class_tokens: list[Tensor], layers: range, cutoff: int
    ) -> tuple[Float[Tensor, "image leaving d_model"], list[Tensor]]:
        """The rows leaving the last of some blocks, and the class tokens that the head reads so far."""
        class_tokens = list(class_tokens)
        for layer in layers:
            x = self._block(x, layer, cutoff)
            if self.model.reads_class_token(layer):
                n_rows, n_live = self.layout.n_prefix_rows, len(self.model.spec.live_prefix)
                class_tokens.append(x[:, :n_rows:n_live].flatten(0, 1))
        return x, class_tokens

    def _block(self, x: Tensor, layer: int, cutoff: int) -> Float[Tensor, "image leaving d_model"]:
        """One block: the prefix rows up to the cutoff, all rows in the tail, which the patch rows join at its start.

        The last block moves the prefix rows alone, unless the head reads patches: of patch rows, only keys and values.
        """
        groups, spec, block = self.layout, self.model.spec, self.model.block(layer)
        tail = self.plan.context == "clamped" and layer >= cutoff - 1
        rows = groups.live if tail and (layer < spec.n_layers - 1 or spec.reads_patches) else groups.prefix
        entering = layer == cutoff - 1 and rows is groups.live
        if not (x.shape[1] or entering):  # a model without prefix rows, before the cutoff
            return x
        normalized = block.norm1(x)
        z = self._read(normalized, rows, layer, cutoff)
        if entering:
            joining = self._joining()
            x = torch.cat([x, self.source.whole_resid(layer)[self.images].index_select(1, joining)], dim=1)
            if attention_of(block).gate is not None:  # the only one to read it again
                normalized = block.norm1(x)
        x, normalized = x[:, : len(rows.tokens)], normalized[:, : len(rows.tokens)]
        return finish(block, x, normalized, z)

    def _read(
        self, normalized: Float[Tensor, "image entering d_model"], rows: Rows, layer: int, cutoff: int
    ) -> Float[Tensor, "image head row d_head"]:
        """What the rows' heads read in a block, from the rows that enter it."""
        plan, groups = self.plan, self.layout
        n_prefix = groups.n_prefix_rows
        attention = attention_of(self.model.block(layer))
        if layer == plan.start:  # the prefix rows are the blank's own still
            tokens = groups.prefix.tokens
            q, k, v = (t[:, tokens].expand(self.n_images, -1, -1, -1) for t in self.blank.qkv(layer))
        else:
            n_asking = n_prefix if rows is groups.prefix else normalized.shape[1]
            q, k, v = project_qkv(attention, normalized[:, :n_asking])
        prefix, index = [t[:, :, :n_prefix] for t in (k, v)], groups.own_source
        if plan.context == "clamped" and layer >= cutoff:
            patched = [t[:, :, n_prefix:] for t in (k, v)]
            if rows is groups.prefix:
                patched = list(project_kv(attention, normalized[:, n_prefix:]))
            k, v = (torch.cat([t, groups.lending.sums(p)], dim=2) for t, p in zip(prefix, patched, strict=True))
            index = groups.own_tail
        elif plan.context == "frozen" or layer < cutoff:
            patched = [self.source.heads(name, layer, self.images) for name in ("k", "v")]
            k, v = (torch.cat([t, p], dim=2) for t, p in zip(prefix, patched, strict=True))
        else:  # the patches are the blank's again
            index = index[:, : len(self.model.spec.live_prefix)]
        k, v = (t.index_select(2, index.flatten()).unflatten(2, tuple(index.shape)) for t in (k, v))
        if len(rows.tokens) > q.shape[2]:
            joining = self.source.heads("q", layer, self.images).index_select(2, self._joining())
            q = torch.cat([q, joining], dim=2)
        return attend(q, k, v, rows, groups, self.blank, layer, plan.attention)

    def _joining(self) -> Int[Tensor, " patch_row"]:
        """Tokens whose rows join at the cutoff."""
        return self.layout.live.tokens[self.layout.n_prefix_rows :]

    def _sequence(self, x: Tensor) -> Float[Tensor, "sequence token d_model"]:
        """What the head gets: the prefix rows; or all tokens, for a head that reads patches."""
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
                rows = groups.lending.sums(x[:, n_prefix:])[:, groups.lending.reads]
            group, neighbour = groups.inside.nonzero(as_tuple=True)
            whole[:, group, groups.patches[group, neighbour] + spec.n_prefix] = rows[:, group, neighbour]
        return whole.flatten(0, 1)


def finish(
    block: Block,
    x: Float[Tensor, "image row d_model"],
    normalized: Float[Tensor, "image asking d_model"],
    z: Float[Tensor, "image head row d_head"],
) -> Float[Tensor, "image row d_model"]:
    """The rest of a block after its heads; `normalized` is what attention got, for a gated one to read again."""
    x = x + block.ls1(attention_output(attention_of(block), z, normalized))
    return x + block.ls2(block.mlp(block.norm2(x)))


def _class_layers(model: HookedViT, leaving: Sequence[Tensor]) -> list[Tensor]:
    """Of the residual streams leaving blocks 0, 1, ..., those whose class token the head reads."""
    return [resid for layer, resid in enumerate(leaving) if model.reads_class_token(layer)]
