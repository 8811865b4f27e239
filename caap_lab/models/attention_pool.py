"""Heads that pool by attention, with the same interface as the attention of blocks.

timm has two kinds. In one (SigLIP, Perception Encoder) the queries are learned latents; in the other (LocAtViT) every
token is a query, without any projection.
"""

from abc import abstractmethod
from typing import Any

from jaxtyping import Float, Int
from timm.layers import AttentionPoolLatent
from timm.layers.attention_pool import AttentionPoolPrr
from torch import Tensor, nn

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.attention import Attention
from caap_lab.models.block import AttentionPoints, read_heads
from caap_lab.models.watched import is_watched


class PoolingAttention(Attention):
    """The attention of a pooling head, over the tokens that the head reads."""

    gated = False
    n_latents: int | None
    """Number of learned queries; None if every token is a query."""

    def __init__(self, pool: Any, n_skipped: int) -> None:
        """Read timm's module, which is not changed and does not get the first `n_skipped` prefix tokens."""
        self.pool = pool
        self.n_skipped = n_skipped
        self.scale = pool.scale
        self.fused = pool.fused_attn
        self.n_heads: int = pool.num_heads
        self.d_head: int = pool.head_dim

    def shape(self, leaf: str, n_tokens: int) -> tuple[int, ...]:
        """Shape of one image's activation at a hook point ("q", "pattern"), if the head reads `n_tokens` tokens."""
        n_queries = n_tokens if self.n_latents is None else self.n_latents
        if leaf in ("attn_scores", "pattern"):
            return (self.n_heads, n_queries, n_tokens)
        return (n_tokens if leaf in ("k", "v") else n_queries, self.n_heads, self.d_head)

    @property
    def answers(self) -> slice:
        """The queries whose answers make the pooled features; where they are several, their mean does."""
        return slice(0, 1) if self.pool.pool == "token" else slice(None)

    @property
    def mlp(self) -> nn.Module | None:
        """The MLP after the attention, if any: apart from norms, the only step of `output` that is not linear."""
        return getattr(self.pool, "mlp", None)

    @abstractmethod
    def output(
        self, z: Float[Tensor, "batch head query d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch d_pooled"]:
        """The pooled features."""

    def _pooled(self, x: Float[Tensor, "batch query d_pooled"]) -> Float[Tensor, "batch d_pooled"]:
        """One value per channel, pooled as timm's module does."""
        return x[:, 0] if self.pool.pool == "token" else x.mean(1)


class LatentPooling(PoolingAttention):
    """timm's AttentionPoolLatent: the queries are learned latents."""

    def __init__(self, pool: Any, n_skipped: int) -> None:
        super().__init__(pool, n_skipped)
        self.n_latents = pool.latent_len

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> tuple[
        Float[Tensor, "batch head latent d_head"],
        Float[Tensor, "batch head token d_head"],
        Float[Tensor, "batch head token d_head"],
    ]:
        """Queries of the latents, keys and values of the tokens."""
        pool, (batch, rows, _) = self.pool, x.shape
        if pool.pos_embed is not None:
            x = x + pool.pos_embed.unsqueeze(0).to(x.dtype)
        latent = pool.latent.expand(batch, -1, -1)
        q = pool.q(latent).reshape(batch, pool.latent_len, self.n_heads, self.d_head).transpose(1, 2)
        k, v = pool.kv(x).reshape(batch, rows, 2, self.n_heads, self.d_head).permute(2, 0, 3, 1, 4).unbind(0)
        return pool.q_norm(q), pool.k_norm(k), v

    def output(
        self, z: Float[Tensor, "batch head latent d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch d_pooled"]:
        """Projection and MLP of the latents' attention output, then the first latent or their mean."""
        pool = self.pool
        out = pool.proj_drop(pool.proj(z.transpose(1, 2).flatten(2)))
        if pool.mlp is not None:
            out = out + pool.mlp(pool.norm(out))
        return self._pooled(out)


class TokenPooling(PoolingAttention):
    """timm's AttentionPoolPrr: the tokens themselves are queries, keys and values, without projection."""

    n_latents = None

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> tuple[
        Float[Tensor, "batch head token d_head"],
        Float[Tensor, "batch head token d_head"],
        Float[Tensor, "batch head token d_head"],
    ]:
        """The tokens, after the norm if there is one, three times."""
        heads = self.pool.pre_norm(x).unflatten(2, (self.n_heads, self.d_head)).transpose(1, 2)
        return heads, heads, heads

    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch d_pooled"]:
        """The attention output of the first token, or the mean over tokens."""
        return self._pooled(self.pool.post_norm(z.transpose(1, 2).flatten(2)))


_KINDS: dict[type[nn.Module], type[PoolingAttention]] = {
    AttentionPoolLatent: LatentPooling,
    AttentionPoolPrr: TokenPooling,
}


def pooling_attention(pool: nn.Module | None, n_skipped: int) -> PoolingAttention | None:
    """The attention of a timm model's pooling; None if it does not pool by attention, or by a custom module.

    Args:
        pool: The model's pooling module, if it has one.
        n_skipped: Number of prefix tokens that it does not read.
    """
    kind = None if pool is None else _KINDS.get(type(pool))
    known = kind is not None and getattr(pool, "pool", None) in ("token", "avg")
    return kind(pool, n_skipped) if kind is not None and known else None


def run_pooling(
    attention: PoolingAttention, points: AttentionPoints, normalized: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch d_pooled"]:
    """The pooled features of all tokens after the final norm, through the hook points of the pooling.

    Raises:
        InputError: a torch hook is on the module, or its forward was replaced; neither would run.
    """
    if is_watched(attention.pool) or is_replaced(attention.pool):
        raise InputError(
            "A torch hook on model.vit.attn_pool, or a forward that replaces its own, would not run: while a hook "
            "point of attn_pool is in use, the hooked model runs its steps one by one. Use hook_pooled, or hook a "
            "module inside it, such as kv."
        )
    x = normalized[:, attention.n_skipped :]
    return attention.output(read_heads(attention, points, x), x)
