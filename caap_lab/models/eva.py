"""timm's Eva: DINOv3, Perception Encoder, EVA and EVA-02, and timm's ViTs with rotary positions."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers import AttentionPoolLatent, AttentionRope, GluMlp, Mlp, PatchEmbed, SwiGLU, apply_rot_embed_cat
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
)
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.errors import InputError
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention import Attention, Heads
from caap_lab.models.base import is_watched
from caap_lab.models.block import Block
from caap_lab.models.mlp import MLPS, mlp_width, run_mlp
from caap_lab.models.plain_vit import SUPPORTED
from caap_lab.models.spec import ViTSpec

_ROTARY = (RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed, RotaryEmbeddingMRope)

Rotation = Float[Tensor, "token sin_cos"] | Float[Tensor, "head token sin_cos"]
"""Sines and cosines of every token's angles, in all heads or in each; a prefix token's angles are 0."""


class EvaViT(Architecture):
    """DINOv3, Perception Encoder, EVA, EVA-02 and ViTs with rotary positions, plain or of each block's own."""

    timm_modules = ("eva",)
    containers = (EvaBlock, EvaAttention, AttentionRope, Mlp, GluMlp, SwiGLU, AttentionPoolLatent, PatchEmbed, *_ROTARY)

    def __init__(self, vit: Any) -> None:
        super().__init__(vit)
        _refuse_unsupported(vit)
        self._rotations: tuple[Any, Tensor] | None = None

    @classmethod
    def fits(cls, vit: nn.Module) -> bool:
        """True for timm's Eva and what is derived from it."""
        return isinstance(vit, Eva)

    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        """Sizes and token roles; see `Architecture.spec`."""
        vit: Any = self.vit
        _refuse_unsupported(vit)
        block, embed = vit.blocks[0], vit.patch_embed
        rows, cols = embed.grid_size
        n_prefix = vit.num_prefix_tokens
        n_class = 0 if vit.cls_token is None else 1
        if vit.attn_pool is None and vit.global_pool == "token":
            read: tuple[int, ...] = (0,)
        else:
            read = tuple(range(n_prefix if vit.attn_pool is None else 0, n_prefix + rows * cols))
        return ViTSpec(
            n_layers=len(vit.blocks),
            n_heads=block.attn.num_heads,
            d_model=vit.embed_dim,
            d_head=block.attn.head_dim,
            d_mlp=mlp_width(block.mlp, vit.embed_dim, next(vit.parameters())) if d_mlp is None else d_mlp,
            grid=(rows, cols),
            patch_size=tuple(embed.patch_size),
            image_size=tuple(embed.img_size),
            prefix=("cls",) * n_class + ("reg",) * (n_prefix - n_class),
            pool=vit.global_pool,
            read_tokens=read,
            gated_mlp=not isinstance(block.mlp, Mlp),
        )

    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        """Patch embeddings, row by row, before positions."""
        patches = self.vit.patch_embed(images)
        # A model built for dynamic sizes keeps the grid as axes until positions are added.
        return patches.reshape(len(patches), -1, patches.shape[-1])

    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """All tokens, with the positions that are added to them, if any.

        Raises:
            InputError: in training, patches are dropped or their places shaken, which the rotation would not follow.
        """
        vit = self.vit
        if vit.training and (vit.patch_drop is not None or getattr(vit.rope, "aug_active", False)):
            raise InputError(
                "In training this model drops patches or shakes their rotary positions, which the hooked model does "
                "not follow; call model.eval() first."
            )
        if vit.dynamic_img_size:
            patches = patches.unflatten(1, tuple(vit.patch_embed.grid_size))
        return vit._pos_embed(patches)[0]

    def block(self, layer: int) -> Block:
        """The parts of one block."""
        block: Any = self.vit.blocks[layer]
        return Block(
            norm1=block.norm1,
            attention=RotaryAttention(block.attn, self._rotation(layer)),
            scale_attention=lambda x: block.drop_path1(_scaled(block.gamma_1, x)),
            norm2=block.norm2,
            mlp=partial(run_mlp, block.mlp),
            scale_mlp=lambda x: block.drop_path2(_scaled(block.gamma_2, x)),
            stepped_through=(("", block), (".attn", block.attn), (".mlp", block.mlp)),
        )

    def biases_apart(self) -> dict[nn.Module, Tensor]:
        """EvaAttention's biases of queries and values, which its layer `qkv` does not have."""
        found = {block.attn.qkv: _bias_apart(block.attn) for block in self.vit.blocks}
        return {layer: bias for layer, bias in found.items() if bias is not None}

    def _rotation(self, layer: int) -> Rotation | None:
        """Angles of a block; kept until what they are made of, or the grid, changes."""
        vit: Any = self.vit
        if vit.rope is None:
            return None
        made_of = [*vit.rope.parameters(), *vit.rope.buffers()]
        state: Any = [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in made_of]
        state = (vit.rope, tuple(vit.patch_embed.grid_size), vit.num_prefix_tokens, state)
        if self._rotations is None or self._rotations[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._rotations = state, _with_prefix(vit)
        rotations = self._rotations[1]
        return rotations[layer] if vit.rope_mixed else rotations


class RotaryAttention(Attention):
    """timm's EvaAttention and AttentionRope: queries and keys of patches are rotated by their places."""

    def __init__(self, attn: Any, rotation: Rotation | None) -> None:
        self.attn = attn
        self.rotation = rotation
        self.scale = attn.scale
        self.fused = attn.fused_attn
        self.gated = attn.gate is not None
        self.dropout = attn.attn_drop.p if attn.training else 0.0

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries and keys, behind q/k norm and rotation, and values."""
        attn: Any = self.attn
        if attn.qkv is None:
            q, k, v = (self._split(layer(x)) for layer in (attn.q_proj, attn.k_proj, attn.v_proj))
        else:
            q, k, v = (self._split(part) for part in self._fused_product(x).chunk(3, dim=-1))
        q = self._rotated(attn.q_norm(q), tokens).type_as(v)
        return q, *self._keys_and_values(k, v, tokens)

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Keys and values alone, where they have layers of their own."""
        if self.attn.qkv is not None:
            return super().project_kv(x, tokens)
        return self._keys_and_values(self._split(self.attn.k_proj(x)), self._split(self.attn.v_proj(x)), tokens)

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights behind timm's dropout."""
        return self.attn.attn_drop(pattern)

    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The heads' output projection, behind a norm and a gate where there are such."""
        attn = self.attn
        out = attn.norm(z.transpose(1, 2).flatten(2))
        if attn.gate is not None:
            out = out * attn.gate(x).sigmoid()
        return attn.proj_drop(attn.proj(out))

    def _fused_product(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_qkv"]:
        """Queries, keys and values in one, with biases as timm adds them: EvaAttention's are not the layer's own."""
        attn, bias = self.attn, _bias_apart(self.attn)
        if bias is None:
            return attn.qkv(x)
        if attn.qkv_bias_separate or is_watched(attn.qkv):  # a torch hook on the layer runs, as on any other
            return attn.qkv(x) + bias
        return F.linear(x, attn.qkv.weight, bias)

    def _split(self, x: Float[Tensor, "batch token d_heads"]) -> Float[Tensor, "batch head token d_head"]:
        return x.unflatten(-1, (-1, self.attn.head_dim)).transpose(1, 2)

    def _keys_and_values(
        self,
        k: Float[Tensor, "batch kv_head token d_head"],
        v: Float[Tensor, "batch kv_head token d_head"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None,
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Keys and values as the heads read them: several heads may share one."""
        k = self._rotated(self.attn.k_norm(k), tokens).type_as(v)
        shared_by = getattr(self.attn, "num_kv_groups", 1)
        if shared_by == 1:
            return k, v
        return k.repeat_interleave(shared_by, dim=1), v.repeat_interleave(shared_by, dim=1)

    def _rotated(
        self,
        x: Float[Tensor, "batch head token d_head"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None,
    ) -> Float[Tensor, "batch head token d_head"]:
        if self.rotation is None:
            return x
        rotation: Tensor = self.rotation
        if tokens is not None:
            rotation = rotation[..., tokens, :]
            if tokens.ndim == 2:  # [image, token, ...], or with heads in front
                rotation = rotation.transpose(0, 1) if rotation.ndim == 4 else rotation[:, None]
        return apply_rot_embed_cat(x, rotation, half=self.attn.rotate_half)


def _bias_apart(attn: Any) -> Float[Tensor, " d_qkv"] | None:
    """The bias of queries, keys and values where it is not that of the layer which projects them."""
    if getattr(attn, "q_bias", None) is None:
        return None
    return torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))


def _scaled(
    gamma: Float[Tensor, " d_model"] | None, x: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch token d_model"]:
    return x if gamma is None else gamma * x


def _with_prefix(vit: Any) -> Float[Tensor, "*layer_and_head token sin_cos"]:
    """Sines and cosines of timm's, behind those that leave the prefix tokens as they are: 0 and 1."""
    rope = vit.rope
    dynamic = vit.dynamic_img_size or not hasattr(rope, "feat_shape")
    patches = rope.get_embed(shape=vit.patch_embed.grid_size) if dynamic else rope.get_embed()
    sin, cos = patches.chunk(2, dim=-1)
    still = sin.new_zeros(*sin.shape[:-2], vit.num_prefix_tokens, sin.shape[-1])
    return torch.cat([torch.cat([still, sin], dim=-2), torch.cat([still + 1, cos], dim=-2)], dim=-1)


def _refuse_unsupported(vit: Any) -> None:
    kind = type(vit).__name__
    for method in ("forward", "forward_features", "pool"):
        if getattr(type(vit), method) is not getattr(Eva, method):
            raise InputError(f"{kind} has a {method} of its own, which the hooks would not follow. {SUPPORTED}")
    if vit.global_pool == "":
        raise InputError(f"This {kind} has no pooling, so it gives no class scores; build it with global_pool='token'.")
    if vit.patch_embed.grid_size is None:
        raise InputError(f"This {kind} has no fixed image size; build it with img_size=..., or call set_input_size.")
    if getattr(vit.patch_embed, "dynamic_img_pad", False):
        raise InputError(f"This {kind} pads its images (dynamic_img_pad); build it with img_size=... a whole grid.")
    if vit.rope is not None and type(vit.rope) not in _ROTARY:
        raise InputError(f"The rotary positions of this {kind} are {type(vit.rope).__name__}. {SUPPORTED}")
    for index, block in enumerate(vit.blocks):
        if isinstance(block, EvaBlockPostNorm):
            raise InputError(
                f"Block {index} of this {kind} is an EvaBlockPostNorm: its norms stand behind attention and MLP, where "
                f"the hook points of pre-norm blocks would not hold what their names say. {SUPPORTED}"
            )
        attn = getattr(block, "attn", None)
        mlp = getattr(block, "mlp", None)
        if type(block) is not EvaBlock or type(attn) not in (EvaAttention, AttentionRope) or type(mlp) not in MLPS:
            parts = ", ".join(type(part).__name__ for part in (block, attn, mlp) if part is not None)
            raise InputError(f"Block {index} of this {kind} is made of {parts}. {SUPPORTED}")
