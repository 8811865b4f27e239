"""Attention of one block as the rest of the package sees it, whatever the family of the Vision Transformer.

A family says how its queries, keys and values are projected and where positions enter: by rotation, in `project_qkv`,
or by a term added to the scores, in `position_bias`. Everything that reads scores (hooks, CAAP's engine) gets them from
`scores`, so that scale and positions stand in one place.

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
    """Factor of q . k."""
    fused: bool
    """Whether timm would run its fused kernel, which rounds in another way than the explicit softmax."""
    gated: bool
    """Whether `output` reads attention's input again."""
    dropout: float = 0.0
    """Share of attention weights that the fused kernel drops; above 0 in training only."""

    @property
    def rotation(self) -> Rotation | None:
        """How `project_qkv` turns queries and keys of all tokens; None where positions are not rotary."""
        return None

    @abstractmethod
    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries, keys and values as their products are taken: after q/k norm and rotation.

        Args:
            x: Attention's input, behind its norm.
            tokens: Which tokens the rows are; None for all, in order.
        """

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Keys and values alone, for tokens whose queries nothing reads."""
        _, k, v = self.project_qkv(x, tokens)
        return k, v

    def position_bias(
        self,
        queries: Int[Tensor, "*group query"] | None,
        keys: Int[Tensor, "*group key"] | None,
    ) -> Float[Tensor, "head *group query key"] | None:
        """What positions add to the scores; None for nothing. Token numbers None are all tokens, in order."""
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
            queries: Which tokens ask, alike in all heads; None for all, in order.
            keys: Which tokens are read.
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
        """What each query's heads read, by torch's fused kernel."""
        bias = self.position_bias(tokens, tokens)
        if bias is not None:
            bias = by_image(bias, tokens).to(q.dtype)
            bias = bias if bias.ndim == 4 else bias[None]  # a mask of three axes has no fused kernel
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout)

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights behind their dropout, which does something in training only."""
        return pattern

    @abstractmethod
    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The heads' output projection; `x` is attention's input, which a gated one reads again."""

    def head_results(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token head d_model"]:
        """What each head adds to `output`; with its bias they add up to it.

        As it stands here it is for an output that is linear in z: what a head gives alone, less what no head gives.
        """
        each = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, :, None, None]
        nothing = self.output(torch.zeros_like(z), x)
        return torch.stack([self.output(z * own, x) - nothing for own in each], dim=2)


def by_image(bias: Float[Tensor, "head ..."], tokens: Int[Tensor, "..."] | None) -> Float[Tensor, "..."]:
    """A position bias [head, image, query, key] as [image, head, query, key]; one for all images as it is."""
    return bias.transpose(0, 1) if tokens is not None and tokens.ndim == 2 else bias
