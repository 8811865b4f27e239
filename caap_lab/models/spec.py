"""The facts of a Vision Transformer that everything else needs, read from timm's model and nowhere else guessed."""

from dataclasses import dataclass
from typing import Any

from timm.layers import Attention, GluMlp, HybridEmbed, Mlp, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.width import output_width

SUPPORTED = (
    "caap_lab works with timm's VisionTransformer built from pre-norm blocks (ViT/AugReg, DeiT and distilled DeiT, "
    "DeiT3, CLIP, DINOv2 with or without registers, SigLIP, average-pooled ViTs), and with its ResNet, DenseNet and "
    "VGG. `caap-lab models` lists them."
)


@dataclass(frozen=True)
class ViTSpec:
    """Sizes and token roles of a ViT. Token order is prefix tokens first, then patches row by row."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    grid: tuple[int, int]
    """Patches as (rows, columns)."""
    patch_size: tuple[int, int]
    """Pixels as (height, width)."""
    image_size: tuple[int, int]
    """Pixels as (height, width)."""
    prefix: tuple[str, ...]
    """Role of each prefix token: "cls", "dist" or "reg"."""
    pool: str
    """timm's name of the pooling: token, avg, avgmax, max, map, prr, or "cls+mean" for a DINOv2 linear head."""
    read_tokens: tuple[int, ...]
    """Tokens of the last block's output that the head reads."""
    gated_mlp: bool

    @property
    def n_prefix(self) -> int:
        """Number of prefix tokens."""
        return len(self.prefix)

    @property
    def n_patches(self) -> int:
        """Number of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def n_tokens(self) -> int:
        """Prefix and patch tokens together."""
        return self.n_prefix + self.n_patches

    @property
    def reads_patches(self) -> bool:
        """True if the head reads patch tokens, so that a class token alone does not decide the score."""
        return any(token >= self.n_prefix for token in self.read_tokens)

    @property
    def live_prefix(self) -> tuple[int, ...]:
        """Prefix tokens that carry the prediction: class and distillation tokens, and any other that the head reads.

        They are the first tokens: timm puts registers behind class tokens, and a head reads all registers or none.
        """
        read = set(self.read_tokens)
        return tuple(i for i, role in enumerate(self.prefix) if role in ("cls", "dist") or i in read)


def read_spec(vit: nn.Module, d_mlp: int | None = None) -> ViTSpec:
    """Read the spec of a timm ViT.

    Args:
        vit: The model.
        d_mlp: The width between an MLP's layers where it is known; None to measure it.

    Raises:
        InputError: the architecture is not supported; the message says what is.
    """
    _refuse_unsupported(vit)
    assert isinstance(vit, VisionTransformer)
    block: Any = vit.blocks[0]
    embed: Any = vit.patch_embed
    rows, cols = embed.grid_size
    n_prefix = vit.num_prefix_tokens
    n_tokens = n_prefix + rows * cols
    read: tuple[int, ...]
    if isinstance(vit, VisionTransformerDistilled):
        prefix: tuple[str, ...] = ("cls", "dist")
        read = (0, 1)
    else:
        prefix = ("cls",) * vit.has_class_token + ("reg",) * vit.num_reg_tokens
        if vit.attn_pool is None and vit.global_pool == "token":
            read = (0,)
        else:
            read = tuple(range(0 if vit.pool_include_prefix else n_prefix, n_tokens))
    return ViTSpec(
        n_layers=len(vit.blocks),
        n_heads=block.attn.num_heads,
        d_model=vit.embed_dim,
        d_head=block.attn.head_dim,
        d_mlp=_mlp_width(block.mlp, vit) if d_mlp is None else d_mlp,
        grid=(rows, cols),
        patch_size=tuple(embed.patch_size),
        image_size=tuple(embed.img_size),
        prefix=prefix,
        pool=vit.global_pool,
        read_tokens=read,
        gated_mlp=not isinstance(block.mlp, Mlp),
    )


def _mlp_width(mlp: Any, vit: VisionTransformer) -> int:
    """Width between an MLP's layers, measured: something else may stand in a layer's place."""
    first = mlp.fc1_x if isinstance(mlp, SwiGLU) else mlp.fc1
    width = (
        first.weight.shape[0]
        if type(first) is nn.Linear
        else output_width([first], vit.embed_dim, next(vit.parameters()), "first layer of the MLP")
    )
    return width // 2 if isinstance(mlp, GluMlp) else width


def _refuse_unsupported(vit: nn.Module) -> None:
    kind = type(vit).__name__
    if isinstance(vit, CNNS):
        raise InputError(f"{kind} is not supported by HookedViT, as it is a CNN; wrap it with HookedCNN.")
    if not isinstance(vit, VisionTransformer):
        raise InputError(f"{kind} is not supported. {SUPPORTED}")
    for method in ("forward", "forward_features", "pool"):
        if getattr(type(vit), method) is not getattr(VisionTransformer, method):
            raise InputError(f"{kind} has a {method} of its own, which the hooks would not follow. {SUPPORTED}")
    if vit.global_pool == "":
        raise InputError(f"This {kind} has no pooling, so it gives no class scores; build it with global_pool='token'.")
    if isinstance(vit.patch_embed, HybridEmbed):
        raise InputError(f"This {kind} reads patches of a convolutional network. {SUPPORTED}")
    if vit.patch_embed.grid_size is None:
        raise InputError(f"This {kind} has no fixed image size; build it with img_size=..., or call set_input_size.")
    if getattr(vit.patch_embed, "dynamic_img_pad", False):
        raise InputError(f"This {kind} pads its images (dynamic_img_pad); build it with img_size=... a whole grid.")
    for index, block in enumerate(vit.blocks):
        attn = getattr(block, "attn", None)
        mlp = getattr(block, "mlp", None)
        if type(block) is not Block or type(attn) is not Attention or type(mlp) not in (Mlp, GluMlp, SwiGLU):
            parts = ", ".join(type(part).__name__ for part in (block, attn, mlp) if part is not None)
            raise InputError(f"Block {index} of this {kind} is made of {parts}. {SUPPORTED}")
