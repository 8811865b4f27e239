"""Attention of groups on CPUs: torch's fused kernel reads the blank's tokens, and a group's own are merged in.

The kernel writes no scores to memory, which at a thousand patches would take longer than the products themselves. A
softmax over two sets of keys is the mean of the two softmaxes, weighted by their sums of exponentials, whose logarithms
the kernel returns beside the result.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.layout import Layout, Rows
from caap_lab.models.attention import Attention

FEWEST_TOKENS = 512
"""Where a model has fewer, scores are small enough for a processor's cache, and `attend`'s one softmax is as quick."""


def merges(q: Float[Tensor, "image head row d_head"], attention: Attention, n_own: int, n_tokens: int) -> bool:
    """Whether `attend_merged` can run and helps: on a CPU, with many tokens, and scores that are only scaled products.

    Args:
        q: Queries of the rows.
        attention: The block's attention.
        n_own: Largest number of a group's own tokens. If it has all of them, no softmax over the blank's is left.
        n_tokens: Number of tokens of the model.
    """
    kind = type(attention)
    plain = kind.scores is Attention.scores and kind.position_bias is Attention.position_bias
    whole = q.dtype in (torch.float32, torch.float64)  # in half precision the parts would be rounded before they meet
    return plain and whole and q.device.type == "cpu" and q.shape[2] > 0 and 0 < n_own < n_tokens >= FEWEST_TOKENS


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
    n_own = own_scores.shape[-1]
    k_blank, v_blank = (t.expand(len(q), -1, -1, -1) for t in blank.qkv(layer)[1:])
    hidden = _hidden(rows, layout, n_own, k_blank.shape[2], q.dtype)
    read, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k_blank, v_blank, attn_mask=hidden, scale=blank.attention(layer).scale
    )
    own_weights, own_log_sum = softmax_of_few(own_scores)
    own_share = (rows.flat(own_log_sum) - log_sum[..., None]).sigmoid()
    return read.lerp_(rows.flat(own_weights @ own_values), own_share)


def softmax_of_few(
    scores: Float[Tensor, "*row few"],
) -> tuple[Float[Tensor, "*row few"], Float[Tensor, "*row 1"]]:
    """Softmax over a short last axis, and the logarithms of its sums: on CPUs torch's own is far slower below 16."""
    log_sum = scores.logsumexp(-1, keepdim=True)
    return (scores - log_sum).exp(), log_sum


def _hidden(rows: Rows, layout: Layout, n_own: int, n_tokens: int, dtype: torch.dtype) -> Float[Tensor, "row token"]:
    """What is added to the scores of the blank's tokens: minus infinity where a group has its own."""
    shown = torch.zeros(layout.n_groups, n_tokens + 1, dtype=dtype, device="cpu")  # clipped neighbours go to the last
    return shown.scatter_(1, layout.replaced[:, :n_own], -torch.inf)[:, :n_tokens].index_select(0, rows.group)
