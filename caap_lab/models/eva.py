"""timm's Eva: DINOv3, Perception Encoder, EVA and EVA-02, and timm's ViTs with rotary positions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers import AttentionPoolLatent, AttentionRope, GluMlp, Mlp, PatchEmbed, SwiGLU
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from caap_lab.errors import InputError
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention import Attention, Heads
from caap_lab.models.block import Block
from caap_lab.models.head_results import head_results
from caap_lab.models.image_sizes import pads_images
from caap_lab.models.mlp import MLPS, run_mlp
from caap_lab.models.qkv_bias import bias_apart, kv_product, qkv_product, refuse_silent_qkv, scaled
from caap_lab.models.rotary import ROTARY, RotaryTables, Rotation
from caap_lab.models.spec import ViTSpec
from caap_lab.models.supported import SUPPORTED
from caap_lab.models.watched import is_watched


class EvaViT(Architecture):
    """DINOv3, Perception Encoder, EVA, EVA-02 and ViTs with rotary positions, shared by all blocks or per block."""

    containers = (EvaBlock, EvaAttention, AttentionRope, Mlp, GluMlp, SwiGLU, AttentionPoolLatent, PatchEmbed, *ROTARY)

    def __init__(self, vit: Any) -> None:
        super().__init__(vit)
        _refuse_unsupported(vit)
        self._tables = RotaryTables()

    @classmethod
    def fits(cls, vit: nn.Module) -> bool:
        """True for timm's Eva and its subclasses."""
        return isinstance(vit, Eva)

    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        """Sizes and token roles; see `Architecture.spec`."""
        vit: Any = self.vit
        _refuse_unsupported(vit)
        rows, cols = vit.patch_embed.grid_size
        n_prefix = vit.num_prefix_tokens
        n_class = 0 if vit.cls_token is None else 1
        if vit.attn_pool is None and vit.global_pool == "token":
            read = range(1)
        else:
            read = range(n_prefix if vit.attn_pool is None else 0, n_prefix + rows * cols)
        prefix = ("cls",) * n_class + ("reg",) * (n_prefix - n_class)
        return self._spec(d_mlp, prefix, read, d_head=vit.blocks[0].attn.head_dim)

    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        """Patch embeddings, row by row, before positions."""
        patches = self.vit.patch_embed(images)
        # A model built for dynamic sizes keeps the grid axes until positions are added.
        return patches.reshape(len(patches), -1, patches.shape[-1])

    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """All tokens, with absolute positions added if the model has them.

        Raises:
            InputError: in training mode patches are dropped or their positions jittered, which the rotation would not
                follow.
        """
        vit = self.vit
        if vit.training and (vit.patch_drop is not None or getattr(vit.rope, "aug_active", False)):
            raise InputError(
                "In training this model drops patches or jitters their rotary positions, which the hooked model does "
                "not follow; call model.eval() first."
            )
        if vit.dynamic_img_size:
            patches = patches.unflatten(1, tuple(vit.patch_embed.grid_size))
        tokens, table = vit._pos_embed(patches)
        self._tables.keep(vit, table)
        return tokens

    def block(self, layer: int) -> Block:
        """The parts of one block."""
        block: Any = self.vit.blocks[layer]
        return Block(
            norm1=block.norm1,
            attention=RotaryAttention(block.attn, partial(self._tables.of_block, self.vit, layer)),
            scale_attention=lambda x: block.drop_path1(scaled(block.gamma_1, x)),
            norm2=block.norm2,
            mlp=partial(run_mlp, block.mlp),
            scale_mlp=lambda x: block.drop_path2(scaled(block.gamma_2, x)),
            stepped_through=(("", block), (".attn", block.attn), (".mlp", block.mlp)),
        )

    def biases_apart(self) -> dict[nn.Module, Tensor]:
        """EvaAttention's biases of queries and values, which are not parameters of its layer `qkv`."""
        found = {block.attn.qkv: bias_apart(block.attn) for block in self.vit.blocks}
        return {layer: bias for layer, bias in found.items() if bias is not None}


class RotaryAttention(Attention):
    """timm's EvaAttention and AttentionRope: queries and keys of patches are rotated by their positions."""

    def __init__(self, attn: Any, rotation: Callable[[], Rotation | None]) -> None:
        self.attn = attn
        self._rotation = rotation
        self.scale = attn.scale
        self.fused = attn.fused_attn
        self.gated = attn.gate is not None
        self.dropout = attn.attn_drop.p if attn.training else 0.0

    def fixed(self) -> "RotaryAttention":
        """The same attention, with its rotation computed."""
        rotation = self.rotation
        return RotaryAttention(self.attn, lambda: rotation)

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries and keys, after q/k norm and rotation, and values."""
        attn: Any = self.attn
        if attn.qkv is None:
            q, k, v = (self._split(layer(x)) for layer in (attn.q_proj, attn.k_proj, attn.v_proj))
        else:
            q, k, v = (self._split(part) for part in qkv_product(attn, x).chunk(3, dim=-1))
        q, k = self._turned([attn.q_norm(q), attn.k_norm(k)], v, tokens)
        return q, self._for_heads(k), self._for_heads(v)

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Only keys and values: by separate layers, or as two thirds of the product."""
        attn: Any = self.attn
        if attn.qkv is None:
            k, v = (self._split(layer(x)) for layer in (attn.k_proj, attn.v_proj))
        else:
            kv = kv_product(attn, x)
            if kv is None:  # modified from outside, for example by adapters: run the layer itself
                return super().project_kv(x, tokens)
            k, v = (self._split(part) for part in kv.chunk(2, dim=-1))
        (k,) = self._turned([attn.k_norm(k)], v, tokens)
        return self._for_heads(k), self._for_heads(v)

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights behind timm's dropout."""
        return self.attn.attn_drop(pattern)

    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The output projection of the heads, after norm and gate if there are any."""
        attn = self.attn
        out = attn.norm(z.transpose(1, 2).flatten(2))
        if attn.gate is not None:
            out = out * attn.gate(x).sigmoid()
        return attn.proj_drop(attn.proj(out))

    def head_results(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token head d_model"]:
        """The contribution of each head to `output`, after norm and gate."""
        return head_results(self.attn, z, x)

    def _split(self, x: Float[Tensor, "batch token d_heads"]) -> Float[Tensor, "batch head token d_head"]:
        return x.unflatten(-1, (-1, self.attn.head_dim)).transpose(1, 2)

    @property
    def rotation(self) -> Rotation | None:
        """The rotation of the queries and keys of all tokens; created on first use."""
        return self._rotation()

    def _turned(
        self,
        heads: list[Tensor],
        like: Float[Tensor, "batch kv_head token d_head"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None,
    ) -> list[Tensor]:
        """Queries or keys [batch, head, token, d_head] rotated by their positions, in the format of the values."""
        rotation = self.rotation
        if rotation is None:
            return heads
        rotation = rotation.of_rows(tokens)
        if tokens is None:
            # All rows, laid out in memory as in timm: the rounding of explicit products depends on the memory layout.
            heads = [x.clone(memory_format=torch.contiguous_format) for x in heads]
        in_place = tokens is None or self._projects_to_new_memory()
        return [(rotation.turn_ if in_place else rotation.turn)(x).type_as(like) for x in heads]

    def _projects_to_new_memory(self) -> bool:
        """Whether nothing else can hold the queries and keys: they come from torch's own layers, without hooks."""
        attn = self.attn
        products = (attn.q_proj, attn.k_proj) if attn.qkv is None else (attn.qkv,)
        norms = (attn.q_norm, attn.k_norm)
        return (
            not _has_any_global_hook()
            and all(type(layer) is nn.Linear for layer in products)
            and all(type(layer) is nn.Identity for layer in norms)
            and not any("forward" in vars(layer) or is_watched(layer) for layer in (*products, *norms))
        )

    def _for_heads(self, x: Float[Tensor, "batch kv_head token d_head"]) -> Float[Tensor, "batch head token d_head"]:
        """Keys or values for each head; several heads may share one."""
        shared_by = self.attn.num_heads // x.shape[1]
        return x if shared_by == 1 else x.repeat_interleave(shared_by, dim=1)


def _refuse_unsupported(vit: Any) -> None:
    kind = type(vit).__name__
    for method in ("forward", "forward_features", "forward_head", "pool"):
        if getattr(type(vit), method) is not getattr(Eva, method):
            raise InputError(f"{kind} overrides {method}, which the hooks would not follow. {SUPPORTED}")
    if vit.global_pool == "":
        raise InputError(f"This {kind} has no pooling, so it has no class scores; build it with global_pool='token'.")
    if vit.patch_embed.grid_size is None:
        raise InputError(f"This {kind} has no fixed image size; build it with img_size=..., or call set_input_size.")
    if pads_images(vit.patch_embed):
        raise InputError(f"This {kind} pads its images (dynamic_img_pad); set img_size=... to whole patches.")
    if vit.rope is not None and type(vit.rope) not in ROTARY:
        raise InputError(f"The rotary positions of this {kind} are {type(vit.rope).__name__}. {SUPPORTED}")
    for index, block in enumerate(vit.blocks):
        if isinstance(block, EvaBlockPostNorm):
            raise InputError(
                f"Block {index} of this {kind} is an EvaBlockPostNorm: its norms follow attention and MLP, so the hook "
                f"points of pre-norm blocks would not hold what their names say. {SUPPORTED}"
            )
        attn = getattr(block, "attn", None)
        mlp = getattr(block, "mlp", None)
        if type(block) is not EvaBlock or type(attn) not in (EvaAttention, AttentionRope) or type(mlp) not in MLPS:
            parts = ", ".join(type(part).__name__ for part in (block, attn, mlp) if part is not None)
            raise InputError(f"Block {index} of this {kind} is made of {parts}. {SUPPORTED}")
        refuse_silent_qkv(attn, f"blocks.{index}.attn")
