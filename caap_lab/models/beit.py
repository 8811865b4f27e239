"""timm's Beit: BEiT and BEiT v2, whose attention adds a learned term for each offset between two tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers import Mlp, PatchEmbed, SwiGLU
from timm.models.beit import Attention as TimmAttention
from timm.models.beit import Beit, RelativePositionBias
from timm.models.beit import Block as TimmBlock
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention import Attention, Heads
from caap_lab.models.block import Block
from caap_lab.models.head_results import head_results
from caap_lab.models.mlp import MLPS, run_mlp
from caap_lab.models.qkv_bias import bias_apart, kv_product, qkv_product, refuse_silent_qkv, scaled
from caap_lab.models.readout import OwnReadout
from caap_lab.models.spec import ViTSpec
from caap_lab.models.supported import SUPPORTED
from caap_lab.models.watched import is_watched


class BeitViT(Architecture):
    """BEiT and BEiT v2: relative positions per block, shared by all blocks, or both; absolute positions or none."""

    containers = (TimmBlock, TimmAttention, RelativePositionBias, Mlp, SwiGLU, PatchEmbed)

    def __init__(self, vit: Any) -> None:
        super().__init__(vit)
        _refuse_unsupported(vit)

    @classmethod
    def fits(cls, vit: nn.Module) -> bool:
        """True for timm's Beit and its subclasses."""
        return isinstance(vit, Beit)

    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        """Sizes and token roles; see `Architecture.spec`."""
        vit: Any = self.vit
        _refuse_unsupported(vit)
        rows, cols = vit.patch_embed.grid_size
        n_prefix = vit.num_prefix_tokens
        read = range(1) if vit.global_pool == "token" else range(n_prefix, n_prefix + rows * cols)
        prefix = ("cls",) + ("reg",) * (n_prefix - 1)  # registers are tokens added by with_extra_tokens
        return self._spec(d_mlp, prefix, read, d_head=vit.embed_dim // vit.blocks[0].attn.num_heads)

    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        """Patch embeddings, row by row, before positions."""
        return self.vit.patch_embed(images)

    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """All tokens, with absolute positions if the model has them."""
        vit = self.vit
        tokens = torch.cat((vit.cls_token.expand(len(patches), -1, -1), patches), dim=1)
        if vit.pos_embed is not None:
            tokens = tokens + vit.pos_embed
        return vit.pos_drop(tokens)

    def before_blocks(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """The tokens unchanged: there is no step between the embeddings and block 0."""
        return tokens

    @property
    def has_norm_pre(self) -> bool:
        """False."""
        return False

    def block(self, layer: int) -> Block:
        """The parts of one block."""
        block: Any = self.vit.blocks[layer]
        return Block(
            norm1=block.norm1,
            attention=BeitAttention(block.attn, self.vit.rel_pos_bias),
            scale_attention=lambda x: block.drop_path1(scaled(block.gamma_1, x)),
            norm2=block.norm2,
            mlp=partial(run_mlp, block.mlp),
            scale_mlp=lambda x: block.drop_path2(scaled(block.gamma_2, x)),
            stepped_through=(("", block), (".attn", block.attn), (".mlp", block.mlp)),
        )

    def biases_apart(self) -> dict[nn.Module, Tensor]:
        """Biases of queries and values, which are not parameters of the layer `qkv`."""
        found = {block.attn.qkv: bias_apart(block.attn) for block in self.vit.blocks}
        return {layer: bias for layer, bias in found.items() if bias is not None}

    def feature_readout(self) -> OwnReadout:
        """Timm's own head."""
        return BeitReadout(self.vit)


class BeitReadout(OwnReadout):
    """timm's head of a Beit, which has no separate method for pooling."""

    @property
    def adds_positions(self) -> bool:
        """False."""
        return False

    @property
    def attention(self) -> None:
        """None: there is no attention pooling."""
        return None

    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch d_model"]:
        """The class token, or the mean of the patches."""
        first_patch = self.vit.num_prefix_tokens
        return normalized[:, 0] if self.vit.global_pool == "token" else normalized[:, first_patch:].mean(dim=1)


class BeitAttention(Attention):
    """timm's attention of a Beit: separate biases for queries and values, and relative positions in the scores."""

    def __init__(self, attn: Any, shared: Any) -> None:
        """Read the attention of one block.

        Args:
            attn: timm's module.
            shared: timm's RelativePositionBias shared by all blocks, if there is one.
        """
        self.attn = attn
        self.scale = attn.scale
        self.fused = attn.fused_attn
        self.gated = False
        self.dropout = attn.attn_drop.p if attn.training else 0.0
        self.positions = [part for part in (attn, shared) if part is not None and part.window_size is not None]
        """Modules that hold a table of offsets, in the order in which timm adds them."""

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries, keys and values, which do not depend on a token's position."""
        batch, rows, _ = x.shape
        qkv = qkv_product(self.attn, x).reshape(batch, rows, 3, self.attn.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Only keys and values: two thirds of the product."""
        kv = kv_product(self.attn, x)
        if kv is None:  # modified from outside: run the layer itself
            return super().project_kv(x, tokens)
        k, v = kv.unflatten(-1, (2, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def position_bias(
        self, queries: Int[Tensor, "*group query"] | None, keys: Int[Tensor, "*group key"] | None
    ) -> Float[Tensor, "head *group query key"] | None:
        """The term for the offsets between keys and queries that is added to the scores, in each head."""
        biases = [_of_offsets(part, queries, keys) for part in self.positions]
        return sum(biases[1:], biases[0]) if biases else None

    def scores(
        self,
        q: Float[Tensor, "*batch query d_head"],
        k: Float[Tensor, "*keys key d_head"],
        queries: Int[Tensor, "*group query"] | None = None,
        keys: Int[Tensor, "*group key"] | None = None,
    ) -> Float[Tensor, "... query key"]:
        """Scores before the softmax; two tables are added one after the other, as in timm's explicit attention."""
        scores = (q * self.scale) @ k.transpose(-2, -1)
        for part in self.positions:
            scores = scores + _of_offsets(part, queries, keys).to(scores.dtype)
        return scores

    def fused_read(
        self,
        q: Float[Tensor, "batch head token d_head"],
        k: Float[Tensor, "batch head token d_head"],
        v: Float[Tensor, "batch head token d_head"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch head token d_head"]:
        """The attention output of each query and head, by the kernel that timm's call selects."""
        if tokens is not None or len(self.positions) != 1 or self.positions[0] is self.attn:
            return super().fused_read(q, k, v, tokens)
        # timm's shared table has no batch axis; for a mask of three axes torch uses a kernel that rounds differently.
        bias = _of_offsets(self.positions[0], None, None)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout)

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights behind timm's dropout."""
        return self.attn.attn_drop(pattern)

    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The output projection of the heads."""
        return self.attn.proj_drop(self.attn.proj(z.transpose(1, 2).flatten(2)))

    def head_results(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token head d_model"]:
        """The contribution of each head to `output`."""
        return head_results(self.attn, z, x)


def _of_offsets(
    part: Any, queries: Int[Tensor, "*group query"] | None, keys: Int[Tensor, "*group key"] | None
) -> Float[Tensor, "head *group query key"]:
    """Entries of a table [offset, head] for pairs of tokens; the class token has its own entries."""
    offsets = part.relative_position_index
    if queries is not None or keys is not None:
        every = torch.arange(len(offsets), device=offsets.device)
        rows, columns = (every if tokens is None else tokens for tokens in (queries, keys))
        offsets = offsets[rows[..., :, None], columns[..., None, :]]
    table = part.relative_position_bias_table.T.contiguous()
    return table.index_select(1, offsets.flatten()).unflatten(1, offsets.shape)


def _refuse_unsupported(vit: Any) -> None:
    kind = type(vit).__name__
    for method in ("forward", "forward_features", "forward_head"):
        if getattr(type(vit), method) is not getattr(Beit, method):
            raise InputError(f"{kind} overrides {method}, which the hooks would not follow. {SUPPORTED}")
    if vit.global_pool == "":
        raise InputError(f"This {kind} has no pooling, so it has no class scores; build it with global_pool='avg'.")
    if vit.patch_embed.grid_size is None:
        raise InputError(f"This {kind} has no fixed image size; build it with img_size=..., or call set_input_size.")
    shared = vit.rel_pos_bias
    if shared is not None and (is_watched(shared) or is_replaced(shared)):
        raise InputError(
            "A torch hook on model.vit.rel_pos_bias, or a replaced forward, would not run: the hooked model "
            "reads its table. Change relative_position_bias_table instead, or hook blocks.0.attn.hook_attn_scores."
        )
    for index, block in enumerate(vit.blocks):
        attn = getattr(block, "attn", None)
        mlp = getattr(block, "mlp", None)
        if type(block) is not TimmBlock or type(attn) is not TimmAttention or type(mlp) not in MLPS:
            parts = ", ".join(type(part).__name__ for part in (block, attn, mlp) if part is not None)
            raise InputError(f"Block {index} of this {kind} is made of {parts}. {SUPPORTED}")
        refuse_silent_qkv(attn, f"blocks.{index}.attn")
