"""One pre-norm transformer block of any family, run through hook points.

A `Block` names the parts of a timm block, which are called in timm's order, so that outputs are bit-equal to timm's in
the same attention mode. timm's modules are not changed: any number of hooked models may share one timm model.

Activation shapes follow TransformerLens: q, k, v, z are [batch, token, head, d_head]; attn_scores and pattern are
[batch, head, query, key]; result is [batch, token, head, d_model]: the contribution of each head to the residual
stream, after LayerScale and without the output projection's bias. It is computed only while a hook reads or edits it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.models.attention import Attention, by_image
from caap_lab.models.mlp import MlpPoints
from caap_lab.models.watched import is_watched

Tokens = Int[Tensor, " token"] | Int[Tensor, "batch token"] | None
"""Token number of each row of a stream, for all images or per image; None for all tokens, in order."""


class NormPoints(nn.Module):
    """Hook point at the output of a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_normalized = HookPoint()


class AttentionPoints(nn.Module):
    """Hook points inside attention."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()


class BlockAttentionPoints(AttentionPoints):
    """Hook points inside a block's attention, and of each head's output after it."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_result = HookPoint()


class BlockPoints(nn.Module):
    """Hook points of one block, under TransformerLens's names."""

    def __init__(self, gated_mlp: bool) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1 = NormPoints()
        self.attn = BlockAttentionPoints()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.ln2 = NormPoints()
        self.mlp = MlpPoints(gated_mlp)
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()


Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Block:
    """The parts of one block: x = x + scale_attention(attention(norm1(x))), then x + scale_mlp(mlp(norm2(x)))."""

    norm1: Step
    attention: Attention
    scale_attention: Step
    """LayerScale or a similar step."""
    norm2: Step
    mlp: Callable[[MlpPoints, Tensor], Tensor]
    """The MLP through its hook points; see `caap_lab.models.mlp.run_mlp`."""
    scale_mlp: Step
    stepped_through: tuple[tuple[str, nn.Module], ...]
    """Modules, by their name within the block, whose steps are run here instead of their forward."""


def run_block(
    block: Block, points: BlockPoints, resid: Float[Tensor, "batch token d_model"], tokens: Tokens = None
) -> Float[Tensor, "batch token d_model"]:
    """Run a block on the residual stream entering it; returns the residual stream leaving it."""
    resid = points.hook_resid_pre(resid)
    normalized = points.ln1.hook_normalized(block.norm1(resid))
    return after_heads(block, points, resid, normalized, read_heads(block.attention, points.attn, normalized, tokens))


def after_heads(
    block: Block,
    points: BlockPoints,
    resid: Float[Tensor, "batch token d_model"],
    normalized: Float[Tensor, "batch token d_model"],
    z: Float[Tensor, "batch head token d_head"],
) -> Float[Tensor, "batch token d_model"]:
    """The rest of a block, after its heads.

    Args:
        block: The block.
        points: Its hook points.
        resid: The stream that entered it.
        normalized: The input of attention, which gated attention reads again.
        z: The outputs of the heads, before the output projection.
    """
    attn_out = block.scale_attention(block.attention.output(z, normalized))
    if is_watched(points.attn.hook_result):
        results = block.scale_attention(block.attention.head_results(z, normalized))
        # Only the change is added, so that the output stays bit-equal if the hook only reads. The hook gets a view, so
        # that its gradient is that of the hook point's output and not of the difference, which is 0.
        attn_out = attn_out + (points.attn.hook_result(results.view_as(results)) - results).sum(dim=2)
    attn_out = points.hook_attn_out(attn_out)
    resid = points.hook_resid_mid(resid + attn_out)
    del z, attn_out  # not held while the MLP runs
    normalized = points.ln2.hook_normalized(block.norm2(resid))
    mlp_out = points.hook_mlp_out(block.scale_mlp(block.mlp(points.mlp, normalized)))
    return points.hook_resid_post(resid + mlp_out)


def read_heads(
    attention: Attention, points: AttentionPoints, x: Float[Tensor, "batch token d_model"], tokens: Tokens = None
) -> Float[Tensor, "batch head query d_head"]:
    """The outputs of the heads; explicit softmax only while scores or pattern are read or edited."""
    q, k, v = attention.project_qkv(x, tokens)
    q = _hook_heads(points.hook_q, q)
    k = _hook_heads(points.hook_k, k)
    v = _hook_heads(points.hook_v, v)
    if attention.fused and not (is_watched(points.hook_attn_scores) or is_watched(points.hook_pattern)):
        z = attention.fused_read(q, k, v, tokens)
    else:
        scores = points.hook_attn_scores(_self_scores(attention, q, k, tokens))
        pattern = points.hook_pattern(scores.softmax(dim=-1))
        z = attention.drop(pattern) @ v
    return _hook_heads(points.hook_z, z)


def _self_scores(
    attention: Attention,
    q: Float[Tensor, "batch head query d_head"],
    k: Float[Tensor, "batch head key d_head"],
    tokens: Tokens,
) -> Float[Tensor, "batch head query key"]:
    """Scores between all tokens; if token numbers differ between images, each image is a group."""
    if tokens is None or tokens.ndim == 1:
        return attention.scores(q, k, tokens, tokens)
    return by_image(attention.scores(q.transpose(0, 1), k.transpose(0, 1), tokens, tokens), tokens)


def _hook_heads(point: HookPoint, x: Float[Tensor, "batch head token d_head"]) -> Tensor:
    return point(x.transpose(1, 2)).transpose(1, 2) if is_watched(point) else x
