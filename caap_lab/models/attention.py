"""The attention of one block, with the same interface for all families of Vision Transformers.

A family defines how queries, keys and values are projected and where positions enter: by rotation, in `project_qkv`, or
as a term added to the scores, in `position_bias`. Everything that reads scores (hooks, CAAP's engine) calls
`scores`, so that scale and positions are handled in one place.

Shapes: q, k, v and z are [..., head, token, d_head]; scores are [..., head, query, key].
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from caap_lab.models.rotary import Rotation

Heads = tuple[
    Float[Tensor, "batch head token d_head"],
    Float[Tensor, "batch head token d_head"],
    Float[Tensor, "batch head token d_head"],
]
"""Queries, keys and values."""


class Attention(ABC):
    """Attention of one block; `tokens` are always token numbers in the model's full sequence."""

    scale: float
    """Factor by which q . k is multiplied."""
    fused: bool
    """Whether timm would run its fused kernel, which rounds differently from the explicit softmax."""
    gated: bool
    """Whether `output` also reads the input of attention."""
    dropout: float = 0.0
    """Fraction of attention weights that the fused kernel drops; above 0 in training only."""

    @property
    def rotation(self) -> Rotation | None:
        """How `project_qkv` rotates queries and keys of all tokens; None if positions are not rotary."""
        return None

    def fixed(self) -> "Attention":
        """The same attention, with everything computed that torch.compile cannot trace: tables of positions."""
        return self

    @abstractmethod
    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries, keys and values as attention multiplies them: after q/k norm and rotation.

        Args:
            x: Input of attention, after its norm.
            tokens: Token number of each row; None for all tokens, in order.
        """

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Only keys and values, for tokens whose queries are not needed."""
        _, k, v = self.project_qkv(x, tokens)
        return k, v

    def position_bias(
        self,
        queries: Int[Tensor, "*group query"] | None,
        keys: Int[Tensor, "*group key"] | None,
    ) -> Float[Tensor, "head *group query key"] | None:
        """The term that positions add to the scores, or None; token numbers of None mean all tokens, in order."""
        return None

    def scores(
        self,
        q: Float[Tensor, "*batch query d_head"],
        k: Float[Tensor, "*keys key d_head"],
        queries: Int[Tensor, "*group query"] | None = None,
        keys: Int[Tensor, "*group key"] | None = None,
    ) -> Float[Tensor, "... query key"]:
        """Scores before the softmax.

        Args:
            q: Queries [..., head, *group, query, d_head].
            k: Keys [..., head, *group, key, d_head].
            queries: Token numbers of the queries, the same in all heads; None for all, in order.
            keys: Token numbers of the keys.
        """
        scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.position_bias(queries, keys)
        return scores if bias is None else scores + bias.to(scores.dtype)

    def fused_read(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch head key d_head"],
        v: Float[Tensor, "batch head key d_head"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch head query d_head"]:
        """The attention output of each query and head, by torch's fused kernel."""
        bias = self.position_bias(tokens, tokens)
        if bias is not None:
            bias = by_image(bias, tokens).to(q.dtype)
            bias = bias if bias.ndim == 4 else bias[None]  # there is no fused kernel for a mask of three axes
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout)

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights after dropout, which is active in training only."""
        return pattern

    @abstractmethod
    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The output projection of the heads; `x` is the input of attention, which gated attention reads again."""

    def head_results(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token head d_model"]:
        """The contribution of each head to `output`; with the bias they sum to it.

        This default is for an output that is linear in z: the output of one head alone minus the output of no head.
        """
        each = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, :, None, None]
        nothing = self.output(torch.zeros_like(z), x)
        return torch.stack([self.output(z * own, x) - nothing for own in each], dim=2)


def by_image(bias: Float[Tensor, "head ..."], tokens: Int[Tensor, "..."] | None) -> Float[Tensor, "..."]:
    """A position bias [head, image, query, key] as [image, head, query, key]; a shared bias is unchanged."""
    return bias.transpose(0, 1) if tokens is not None and tokens.ndim == 2 else bias
