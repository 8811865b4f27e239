"""What the package has to know of a family of Vision Transformers: one subclass of `Architecture` in one file each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from timm.layers import Mlp
from torch import Tensor, nn

from caap_lab.models.block import Block
from caap_lab.models.heads import ClassAndMeanHead
from caap_lab.models.mlp import mlp_width
from caap_lab.models.readout import ClassAndMeanReadout, FeatureReadout, OwnReadout, Readout
from caap_lab.models.spec import ViTSpec


class Architecture(ABC):
    """A model of one family, taken apart into the steps that hook points stand between.

    `HookedViT`, CAAP's engine, sweeps, diagnostics and attribution methods know models by this interface alone. What is
    not abstract here goes by the names that timm's Vision Transformers share. A family's file is listed in
    `caap_lab.models.families`.
    """

    containers: ClassVar[Sequence[type[nn.Module]]] = ()
    """Classes that only call their own parts, so that rules for the parts (LibraGrad's, LRP's) say all of them."""

    def __init__(self, vit: Any) -> None:
        """Look at a model; nothing in it is changed.

        Args:
            vit: A model that `fits` has taken.

        Raises:
            InputError: the model is of the family, and something in it is not supported.
        """
        self.vit = vit

    @classmethod
    @abstractmethod
    def fits(cls, vit: nn.Module) -> bool:
        """True if a model belongs to this family."""

    @abstractmethod
    def spec(self, d_mlp: int | None = None) -> ViTSpec:
        """Sizes and token roles.

        Args:
            d_mlp: The width between an MLP's layers where it is known; None to measure it.

        Raises:
            InputError: the model has been changed into one that is not supported.
        """

    def _spec(self, d_mlp: int | None, prefix: Sequence[str], read_tokens: Sequence[int], **own: Any) -> ViTSpec:
        """A spec whose other sizes go by the names that timm's Vision Transformers share, or are the family's own."""
        vit = self.vit
        block, embed = vit.blocks[0], vit.patch_embed
        sizes: dict[str, Any] = {
            "n_layers": len(vit.blocks),
            "n_heads": block.attn.num_heads,
            "d_model": vit.embed_dim,
            "d_mlp": mlp_width(block.mlp, vit.embed_dim, next(vit.parameters())) if d_mlp is None else d_mlp,
            "grid": tuple(embed.grid_size),
            "patch_size": tuple(embed.patch_size),
            "image_size": tuple(embed.img_size),
            "pool": vit.global_pool,
            "gated_mlp": not isinstance(block.mlp, Mlp),
        }
        return ViTSpec(**{**sizes, **own}, prefix=tuple(prefix), read_tokens=tuple(read_tokens))

    # -- from images to the residual stream ----------------------------------------------------------------------

    @abstractmethod
    def read_patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patch d_model"]:
        """Patch embeddings, row by row, before positions."""

    @abstractmethod
    def add_positions(self, patches: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch token d_model"]:
        """All tokens, with what positions add to them here."""

    def before_blocks(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """What stands between the embeddings and block 0."""
        return self.vit.norm_pre(tokens)

    @property
    def has_norm_pre(self) -> bool:
        """True if a norm stands there, as in CLIP."""
        return not isinstance(self.vit.norm_pre, nn.Identity)

    # -- blocks ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def block(self, layer: int) -> Block:
        """The parts of one block."""

    def biases_apart(self) -> dict[nn.Module, Tensor]:
        """Biases that the family adds to the outputs of linear layers, by layer, which are not the layers' own."""
        return {}

    # -- from the residual stream to class scores ----------------------------------------------------------------

    def final_norm(self, tokens: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The norm behind the last block."""
        return self.vit.norm(tokens)

    def feature_readout(self) -> OwnReadout:
        """Timm's own head as it is, whose output another head may read."""
        return OwnReadout(self.vit)

    def own_readout(self) -> Readout:
        """The head that gives the model's scores where it has no other."""
        return self.feature_readout()

    def readout(self, head: nn.Module | None, n_prefix: int) -> Readout:
        """The model's own head, or a head of `caap_lab.models.heads` in its place or on its features.

        Args:
            head: A head; None for the model's own.
            n_prefix: Number of prefix tokens.
        """
        if head is None:
            return self.own_readout()
        if isinstance(head, ClassAndMeanHead):
            return ClassAndMeanReadout(head, n_prefix)
        return FeatureReadout(self.feature_readout(), head)
