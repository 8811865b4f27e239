"""Attention of a group's rows: over the group's own tokens and the blank's, in one softmax (paper eq 7)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.fused import attend_fused, fits
from caap_lab.engine.layout import Layout, Rows
from caap_lab.engine.merged import MASKED, attend_merged, merges, softmax_of_few
from caap_lab.engine.rows import take_rows
from caap_lab.models.device_dtype import widened


def attend(
    q: Float[Tensor, "image head row d_head"],
    k: Float[Tensor, "image head place d_head"],
    v: Float[Tensor, "image head place d_head"],
    places: Int[Tensor, "group own"],
    rows: Rows,
    layout: Layout,
    blank: BlankRun,
    layer: int,
    attention: str,
) -> Float[Tensor, "image head row d_head"]:
    """The attention output of each row.

    Args:
        q: Queries of the rows.
        k: Keys of tokens that are not the blank's.
        v: Their values.
        places: Indices in k and v of each group's own tokens: live prefix, then S_i unless these are the blank's.
        rows: The rows.
        layout: The groups.
        blank: The blank run, whose other tokens the rows read.
        layer: The block.
        attention: "exact", or "cached" or "cached_all" for E-CAAP.
    """
    if attention == "exact" and fits(q, blank.attention(layer)):
        return attend_fused(q, k, v, places, rows, layout, blank, layer)
    n_own, score = places.shape[1], blank.attention(layer).scores
    k, v = (take_rows(t, places.flatten()).unflatten(2, tuple(places.shape)) for t in (k, v))
    grouped_scores = score(rows.grouped(q), k, rows.grouped_tokens, layout.own_tokens[:, :n_own])
    n_tokens = blank.model.spec.n_tokens
    if attention == "exact" and merges(q, blank.attention(layer), n_own, n_tokens):
        clipped = layout.replaced[:, :n_own] == n_tokens
        return attend_merged(q, grouped_scores.masked_fill(clipped[:, None], MASKED), v, rows, layout, blank, layer)
    own_scores = widened(rows.flat(grouped_scores))
    if attention != "exact":
        return _attend_cached(own_scores, v, rows, layout, blank, layer, subtract=attention == "cached")

    # A group's own tokens replace the blank's. Clipped neighbours all go to an extra place after all tokens, which is
    # masked.
    k_blank, v_blank = (pad(t, (0, 0, 0, 1)) for t in blank.qkv(layer)[1:])
    scores = score(q, k_blank, rows.tokens, pad(blank.tokens(), (0, 1))).to(own_scores.dtype)
    replaced = layout.replaced[:, :n_own][rows.group].expand(own_scores.shape)
    scores.scatter_(-1, replaced, own_scores)
    scores[..., -1].fill_(MASKED)
    weights = scores.softmax(dim=-1)
    own_weights = weights.gather(-1, replaced).to(v.dtype)
    weights = weights.scatter_(-1, replaced, 0).to(v.dtype)
    return (weights @ v_blank).add_(rows.flat(rows.grouped(own_weights) @ v))


def _attend_cached(
    own_scores: Float[Tensor, "image head row own"],
    v: Float[Tensor, "image head group own d_head"],
    rows: Rows,
    layout: Layout,
    blank: BlankRun,
    layer: int,
    subtract: bool,
) -> Float[Tensor, "image head row d_head"]:
    """E-CAAP (paper appendix B.1, eqs 8 and 9): the blank is read as by the blank's own query at the row's position.

    With `subtract`, the terms of S_i's blank tokens are subtracted; the paper's single constant includes them.
    """
    n_prefix_own = len(blank.model.spec.live_prefix)
    clipped = pad(~layout.inside, (n_prefix_own, 0))[:, : own_scores.shape[-1]]
    own_scores = own_scores.masked_fill(clipped[rows.group], MASKED)
    log_z, share, mean_v = _background_terms(rows, layout, blank, layer, subtract)
    scores = torch.cat([own_scores, log_z[..., None].expand(*own_scores.shape[:-1], 1)], dim=-1)
    weights, _ = softmax_of_few(scores)
    own_weights, blank_weight = weights[..., :-1], weights[..., -1]
    total = own_weights.sum(dim=-1) + blank_weight * share
    read = rows.flat(rows.grouped(own_weights.to(v.dtype)) @ v) + blank_weight[..., None].to(v.dtype) * mean_v
    return read / total[..., None].to(v.dtype)


def _background_terms(
    rows: Rows, layout: Layout, blank: BlankRun, layer: int, subtract: bool
) -> tuple[Float[Tensor, "head row"], Float[Tensor, "head row"], Float[Tensor, "head row d_head"]]:
    """What the blank's own queries at the rows' positions read from the blank: log Z_B, the remaining share, vbar_B.

    With `subtract`, the terms of each group's S_i are subtracted. The result does not depend on the image, so it is
    cached with the blank run, unless limited memory splits an image's groups. It is cached by name, so that equal
    groups find it again.
    """
    key = (layer, layout.name, rows is layout.prefix, subtract)
    if layout.name and layout.n_groups == blank.model.spec.n_patches:
        if key not in blank.row_terms:
            blank.row_terms[key] = _compute_terms(rows, layout, blank, layer, subtract)
        return blank.row_terms[key]
    return _compute_terms(rows, layout, blank, layer, subtract)


def _compute_terms(
    rows: Rows, layout: Layout, blank: BlankRun, layer: int, subtract: bool
) -> tuple[Float[Tensor, "head row"], Float[Tensor, "head row"], Float[Tensor, "head row d_head"]]:
    log_z, mean_v = (term.index_select(1, rows.tokens) for term in blank.background_terms(layer))
    share_left = torch.ones_like(log_z)
    if subtract:
        q, k_blank, v_blank = blank.qkv(layer)
        n_queries = len(blank.model.spec.live_prefix) if rows is layout.prefix else q.shape[1]
        scores = blank.attention(layer).scores(q[:, :n_queries], k_blank, blank.tokens(slice(n_queries)))
        pattern = scores.to(log_z.dtype) - blank.background_terms(layer)[0][:, :n_queries, None]
        tokens = layout.patches + blank.model.spec.n_prefix
        places = rows.tokens[:, None] * q.shape[1] + tokens[rows.group]
        share = pattern.exp().flatten(1).index_select(1, places.flatten()).unflatten(1, tuple(places.shape))
        share = share * layout.inside[rows.group]
        share_left = (1 - share.sum(dim=-1)).clamp(min=0)
        values = v_blank.index_select(1, tokens.flatten()).unflatten(1, tuple(tokens.shape))
        mean_v = mean_v - rows.flat(rows.grouped(share.to(v_blank.dtype)) @ values)
    return log_z, share_left, mean_v
