"""The sizes and token roles of a Vision Transformer, read from timm's model and never guessed."""

from dataclasses import dataclass


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
    """timm's name for the pooling: token, avg, avgmax, max, map, prr, or "cls+mean" for a DINOv2 linear head."""
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
        """Number of prefix and patch tokens together."""
        return self.n_prefix + self.n_patches

    @property
    def reads_patches(self) -> bool:
        """True if the head reads patch tokens, so that the class token alone does not determine the score."""
        return any(token >= self.n_prefix for token in self.read_tokens)

    @property
    def live_prefix(self) -> tuple[int, ...]:
        """Prefix tokens that carry the prediction: class and distillation tokens, and any others that the head reads.

        They are the first tokens: timm puts registers after class tokens, and a head reads all registers or none.
        """
        read = set(self.read_tokens)
        return tuple(i for i, role in enumerate(self.prefix) if role in ("cls", "dist") or i in read)
