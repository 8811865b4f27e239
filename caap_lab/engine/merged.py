"""Attention of groups on CPUs: torch's fused kernel reads the blank's tokens, and a group's own are merged in.

The kernel writes no scores to memory, which at a thousand patches would take longer than the products themselves. A
softmax over several sets of keys is the mean of their softmaxes, weighted by their sums of exponentials, whose
logarithms the kernel returns beside the result. So only tokens that some group replaces need a mask: the patches that
are scored at once, and their neighbours.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.layout import Layout, Rows
from caap_lab.models.attention import Attention

FEWEST_TOKENS = 256
"""Where a model has fewer, scores are small enough for a processor's cache, and `attend`'s one softmax is as quick."""

MASKED = -1e30
"""Score of a missing key, or what is added to that of a replaced one; finite, so that no row becomes NaN."""


def merges(q: Float[Tensor, "image head row d_head"], attention: Attention, n_own: int, n_tokens: int) -> bool:
    """Whether `attend_merged` can run and helps: on a CPU, with many tokens, and scores that are only scaled products.

    Args:
        q: Queries of the rows.
        attention: The block's attention.
        n_own: Largest number of a group's own tokens.
        n_tokens: Number of tokens of the model.
    """
    kind = type(attention)
    plain = kind.scores is Attention.scores and kind.position_bias is Attention.position_bias
    whole = q.dtype in (torch.float32, torch.float64)  # in half precision the parts would be rounded before they meet
    return plain and whole and q.device.type == "cpu" and q.shape[2] > 0 and n_own > 0 and n_tokens >= FEWEST_TOKENS


def attend_merged(
    q: Float[Tensor, "image head row d_head"],
    own_scores: Float[Tensor, "image head group slot own"],
    own_values: Float[Tensor, "image head group own d_head"],
    rows: Rows,
    layout: Layout,
    blank: BlankRun,
    layer: int,
) -> Float[Tensor, "image head row d_head"]:
    """The attention output of each row; exact up to rounding.

    Args:
        q: Queries of the rows.
        own_scores: Scores of each group's rows for its own tokens, those of clipped neighbours masked.
        own_values: Values of its own tokens.
        rows: The rows.
        layout: The groups.
        blank: The blank run, whose other tokens the rows read.
        layer: The block.
    """
    n_live, n_own, span = len(blank.model.spec.live_prefix), own_scores.shape[-1], layout.span
    parts: list[tuple[slice, Tensor | None]] = [(slice(n_live, None), None)]  # all groups have their own live prefix
    if n_own > n_live:
        before, after = slice(n_live, span.start), slice(span.stop, None)
        parts = [(before, None), (span, _hidden(rows, layout, q.dtype)), (after, None)]
    own_weights, own_log_sum = softmax_of_few(own_scores)
    read, log_sum = rows.flat(own_weights @ own_values), rows.flat(own_log_sum)
    _, k_blank, v_blank = blank.qkv(layer)
    for tokens, hidden in parts:
        k, v = (t[:, tokens].expand(len(q), -1, -1, -1) for t in (k_blank, v_blank))
        if k.shape[2]:
            also_read, also = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, attn_mask=hidden, scale=blank.attention(layer).scale
            )
            read = read.lerp_(also_read, (also[..., None] - log_sum).sigmoid())
            log_sum = torch.logaddexp(log_sum, also[..., None])
    return read


def softmax_of_few(
    scores: Float[Tensor, "*row few"],
) -> tuple[Float[Tensor, "*row few"], Float[Tensor, "*row 1"]]:
    """Softmax over a short last axis, and the logarithms of its sums: on CPUs torch's own is far slower below 16."""
    log_sum = scores.logsumexp(-1, keepdim=True)
    return (scores - log_sum).exp(), log_sum


def _hidden(rows: Rows, layout: Layout, dtype: torch.dtype) -> Float[Tensor, "row token"]:
    """What is added to the scores of the blank's tokens in the span: so much that none is left of S_i's.

    A finite number, as all of the span may be in a row's S_i.
    """
    first, width = layout.span.start, layout.span.stop - layout.span.start
    n_live = layout.replaced.shape[1] - layout.patches.shape[1]
    shown = torch.zeros(layout.n_groups, width + 1, dtype=dtype, device="cpu")  # clipped neighbours go to the last
    replaced = (layout.replaced[:, n_live:] - first).clamp(max=width)
    return shown.scatter_(1, replaced, MASKED)[:, :width].index_select(0, rows.group)
