"""timm's VisionTransformer built from its plain pre-norm blocks, and the distilled DeiT."""

from functools import partial
from typing import Any

from jaxtyping import Float, Int
from timm.layers import Attention as TimmAttention
from timm.layers import AttentionPoolLatent, GluMlp, HybridEmbed, Mlp, PatchEmbed, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from caap_lab.errors import InputError
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention import Attention, Heads
from caap_lab.models.block import Block
from caap_lab.models.head_results import head_results
from caap_lab.models.image_sizes import pads_images
from caap_lab.models.mlp import MLPS, run_mlp
from caap_lab.models.readout import DistilledReadout, Readout
from caap_lab.models.spec import ViTSpec
from caap_lab.models.stem import Stem
from caap_lab.models.supported import SUPPORTED


class PlainViT(Architecture):
    """ViT/AugReg, DeiT, DeiT3, CLIP, DINOv2, SigLIP: positions are only added to the tokens.

    Patches are taken from the image, or from the feature map of a convolutional stem; see `caap_lab.models.stem`.
    """

    containers = (TimmBlock, TimmAttention, Mlp, GluMlp, SwiGLU, AttentionPoolLatent, PatchEmbed)

    def __init__(self, vit: Any) -> None:
        super().__init__(vit)
        _refuse_unsupported(vit)
        self._stem = Stem()

    @classmethod
    def fits(cls, vit: nn.Module) -> bool:
        """True for timm's VisionTransformer and its subclasses."""
        return isinstance(vit, VisionTransformer)

    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        """Sizes and token roles; see `Architecture.spec`."""
        vit: Any = self.vit
        _refuse_unsupported(vit)
        embed, n_prefix = vit.patch_embed, vit.num_prefix_tokens
        rows, cols = embed.grid_size
        if isinstance(vit, VisionTransformerDistilled):
            prefix: tuple[str, ...] = ("cls", "dist") + ("reg",) * (n_prefix - 2)
            read = range(2)
        else:
            prefix = ("cls",) * vit.has_class_token + ("reg",) * vit.num_reg_tokens
            if vit.attn_pool is None and vit.global_pool == "token":
                read = range(1)
            else:
                read = range(0 if vit.pool_include_prefix else n_prefix, n_prefix + rows * cols)
        stem = {"patch_size": self._stem.cell(embed)} if isinstance(embed, HybridEmbed) else {}
        return self._spec(d_mlp, prefix, read, d_head=vit.blocks[0].attn.head_dim, **stem)

    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        """Patch embeddings, row by row, before positions."""
        patches = self.vit.patch_embed(images)
        # A model built for dynamic sizes keeps the grid axes until positions are added.
        return patches.reshape(len(patches), -1, patches.shape[-1])

    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """All tokens, with their positions."""
        if self.vit.dynamic_img_size:
            patches = patches.unflatten(1, tuple(self.vit.patch_embed.grid_size))
        return self.vit._pos_embed(patches)

    def before_blocks(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """Patch dropout, in training only, and CLIP's norm."""
        return self.vit.norm_pre(self.vit.patch_drop(tokens))

    def block(self, layer: int) -> Block:
        """The parts of one block."""
        block: Any = self.vit.blocks[layer]
        return Block(
            norm1=block.norm1,
            attention=PlainAttention(block.attn),
            scale_attention=lambda x: block.drop_path1(block.ls1(x)),
            norm2=block.norm2,
            mlp=partial(run_mlp, block.mlp),
            scale_mlp=lambda x: block.drop_path2(block.ls2(x)),
            stepped_through=(("", block), (".attn", block.attn), (".mlp", block.mlp)),
        )

    def own_readout(self) -> Readout:
        """Timm's head; a distilled DeiT has two."""
        distilled = isinstance(self.vit, VisionTransformerDistilled)
        return DistilledReadout(self.vit) if distilled else self.feature_readout()


class PlainAttention(Attention):
    """timm's Attention: one product for queries, keys and values, with or without q/k norm."""

    def __init__(self, attn: Any) -> None:
        self.attn = attn
        self.scale = attn.scale
        self.fused = attn.fused_attn
        self.gated = attn.gate is not None
        self.dropout = attn.attn_drop.p if attn.training else 0.0

    def project_qkv(
        self,
        x: Float[Tensor, "batch token d_model"],
        tokens: Int[Tensor, " token"] | Int[Tensor, "batch token"] | None = None,
    ) -> Heads:
        """Queries and keys, after q/k norm, and values; they do not depend on a token's position."""
        attn, (batch, rows, _) = self.attn, x.shape
        qkv = attn.qkv(x).reshape(batch, rows, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return attn.q_norm(q), attn.k_norm(k), v

    def project_kv(
        self, x: Float[Tensor, "batch token d_model"], tokens: Int[Tensor, " token"] | None = None
    ) -> tuple[Float[Tensor, "batch head token d_head"], Float[Tensor, "batch head token d_head"]]:
        """Only keys and values: two thirds of the product."""
        attn = self.attn
        own = type(attn.qkv) is nn.Linear and "forward" not in vars(attn.qkv)
        if not own:  # modified from outside, for example by adapters: run the layer itself
            return super().project_kv(x, tokens)
        width = attn.attn_dim
        bias = None if attn.qkv.bias is None else attn.qkv.bias[width:]
        kv = F.linear(x, attn.qkv.weight[width:], bias)
        k, v = kv.unflatten(-1, (2, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        return attn.k_norm(k), v

    def drop(self, pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """Attention weights behind timm's dropout."""
        return self.attn.attn_drop(pattern)

    def output(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The output projection of the heads, after a gate if there is one."""
        attn, (batch, _, rows, _) = self.attn, z.shape
        out = attn.norm(z.transpose(1, 2).reshape(batch, rows, attn.attn_dim))
        if attn.gate is not None:
            out = out * attn.gate(x).sigmoid()
        return attn.proj_drop(attn.proj(out))

    def head_results(
        self, z: Float[Tensor, "batch head token d_head"], x: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token head d_model"]:
        """The contribution of each head to `output`, after norm and gate."""
        return head_results(self.attn, z, x)


def _refuse_unsupported(vit: Any) -> None:
    kind = type(vit).__name__
    original = VisionTransformerDistilled if isinstance(vit, VisionTransformerDistilled) else VisionTransformer
    for method in ("forward", "forward_features", "forward_head", "pool"):
        if getattr(type(vit), method) is not getattr(original, method):
            raise InputError(f"{kind} overrides {method}, which the hooks would not follow. {SUPPORTED}")
    if vit.global_pool == "":
        raise InputError(f"This {kind} has no pooling, so it has no class scores; build it with global_pool='token'.")
    if vit.patch_embed.grid_size is None:
        raise InputError(f"This {kind} has no fixed image size; build it with img_size=..., or call set_input_size.")
    if pads_images(vit.patch_embed):
        raise InputError(f"This {kind} pads its images (dynamic_img_pad); set img_size=... to whole patches.")
    for index, block in enumerate(vit.blocks):
        attn = getattr(block, "attn", None)
        mlp = getattr(block, "mlp", None)
        if type(block) is not TimmBlock or type(attn) is not TimmAttention or type(mlp) not in MLPS:
            parts = ", ".join(type(part).__name__ for part in (block, attn, mlp) if part is not None)
            raise InputError(f"Block {index} of this {kind} is made of {parts}. {SUPPORTED}")
