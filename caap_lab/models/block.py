"""One transformer block of timm, run through HookPoints.

The functions call timm's own submodules in timm's own order, so that outputs are bit-equal to timm in the same
attention mode. timm's modules are not changed: any number of hooked models may share one timm model.

Activation shapes follow TransformerLens: q, k, v, z are [batch, token, head, d_head]; attn_scores and pattern are
[batch, head, query, key].
"""

from typing import cast

from jaxtyping import Float
from timm.layers import Attention, GluMlp, Mlp, SwiGLU
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint

from caap_lab.models.base import is_watched


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


class MlpPoints(nn.Module):
    """Hook points inside the MLP; a gated MLP has the linear branch as `hook_pre_linear`."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.hook_pre = HookPoint()
        if gated:
            self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()


class BlockPoints(nn.Module):
    """Hook points of one block, under TransformerLens's names."""

    def __init__(self, gated_mlp: bool) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1 = NormPoints()
        self.attn = AttentionPoints()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.ln2 = NormPoints()
        self.mlp = MlpPoints(gated_mlp)
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()


def run_block(block: Block, points: BlockPoints, resid: Float[Tensor, "batch token d_model"]) -> Tensor:
    """Run a block on the residual stream entering it; returns the residual stream leaving it."""
    resid = points.hook_resid_pre(resid)
    normalized = points.ln1.hook_normalized(block.norm1(resid))
    attn_out = points.hook_attn_out(
        block.drop_path1(block.ls1(run_attention(attention_of(block), points.attn, normalized)))
    )
    resid = points.hook_resid_mid(resid + attn_out)
    normalized = points.ln2.hook_normalized(block.norm2(resid))
    mlp_out = points.hook_mlp_out(block.drop_path2(block.ls2(run_mlp(block.mlp, points.mlp, normalized))))
    return points.hook_resid_post(resid + mlp_out)


def attention_of(block: Block) -> Attention:
    """A block's attention, whose class `read_spec` has checked."""
    return cast(Attention, block.attn)


def run_attention(attn: Attention, points: AttentionPoints, x: Float[Tensor, "batch token d_model"]) -> Tensor:
    """Attention with hook points; explicit softmax only while scores or pattern are read or edited."""
    q, k, v = project_qkv(attn, x)
    q = _hook_heads(points.hook_q, q)
    k = _hook_heads(points.hook_k, k)
    v = _hook_heads(points.hook_v, v)
    if attn.fused_attn and not (is_watched(points.hook_attn_scores) or is_watched(points.hook_pattern)):
        z = F.scaled_dot_product_attention(q, k, v, dropout_p=attn.attn_drop.p if attn.training else 0.0)
    else:
        scores = points.hook_attn_scores((q * attn.scale) @ k.transpose(-2, -1))
        pattern = points.hook_pattern(scores.softmax(dim=-1))
        z = attn.attn_drop(pattern) @ v
    return attention_output(attn, _hook_heads(points.hook_z, z), x)


def project_qkv(attn: Attention, x: Float[Tensor, "batch token d_model"]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys (both after q/k norm) and values, each [batch, head, token, d_head]."""
    batch, tokens, _ = x.shape
    qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    return attn.q_norm(q), attn.k_norm(k), v


def attention_output(attn: Attention, z: Float[Tensor, "batch head token d_head"], x: Tensor) -> Tensor:
    """Output projection of the heads; `x` is attention's input, which a gated attention reads again."""
    batch, _, tokens, _ = z.shape
    out = attn.norm(z.transpose(1, 2).reshape(batch, tokens, attn.attn_dim))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    return attn.proj_drop(attn.proj(out))


def run_mlp(mlp: nn.Module, points: MlpPoints, x: Float[Tensor, "batch token d_model"]) -> Tensor:
    """MLP with hook points: plain, or gated as act(pre) * pre_linear."""
    if isinstance(mlp, Mlp):
        post = mlp.act(points.hook_pre(mlp.fc1(x)))
    else:
        if isinstance(mlp, GluMlp):
            first, second = mlp.fc1(x).chunk(2, dim=-1)
            pre, linear = (second, first) if mlp.gate_last else (first, second)
        else:
            assert isinstance(mlp, SwiGLU)
            pre, linear = mlp.fc1_g(x), mlp.fc1_x(x)
        post = mlp.act(points.hook_pre(pre)) * points.hook_pre_linear(linear)
    return mlp.drop2(mlp.fc2(mlp.norm(mlp.drop1(points.hook_post(post)))))


def _hook_heads(point: HookPoint, x: Float[Tensor, "batch head token d_head"]) -> Tensor:
    return point(x.transpose(1, 2)).transpose(1, 2) if is_watched(point) else x
