"""The interface to a family of Vision Transformers; each family is a subclass of `Architecture` in its own file."""

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
    """A model of one family, split into the steps between hook points.

    `HookedViT`, CAAP's engine, sweeps, diagnostics and attribution methods use models through this interface only.
    Methods that are not abstract read the attribute names that timm's Vision Transformers share. Families are listed in
    `caap_lab.models.families`.
    """

    containers: ClassVar[Sequence[type[nn.Module]]] = ()
    """Classes that only call their own submodules, so that backward rules (LibraGrad's, LRP's) for those suffice."""

    def __init__(self, vit: Any) -> None:
        """Read a model, which is not changed.

        Args:
            vit: A model for which `fits` is True.

        Raises:
            InputError: the model belongs to the family, but a part of it is not supported.
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
            d_mlp: The hidden width of the MLPs if known; None to measure it.

        Raises:
            InputError: the model was changed in a way that is not supported.
        """

    def _spec(self, d_mlp: int | None, prefix: Sequence[str], read_tokens: Sequence[int], **own: Any) -> ViTSpec:
        """A spec; sizes not given in `own` are read from the attribute names that timm's Vision Transformers share."""
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
        """All tokens, with position embeddings added where the family has them."""

    def before_blocks(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """The steps between the embeddings and block 0."""
        return self.vit.norm_pre(tokens)

    @property
    def has_norm_pre(self) -> bool:
        """True if there is a norm before block 0, as in CLIP."""
        return not isinstance(self.vit.norm_pre, nn.Identity)

    # -- blocks ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def block(self, layer: int) -> Block:
        """The parts of one block."""

    def biases_apart(self) -> dict[nn.Module, Tensor]:
        """Biases added to the outputs of linear layers that are not parameters of those layers, by layer."""
        return {}

    # -- from the residual stream to class scores ----------------------------------------------------------------

    def final_norm(self, tokens: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The norm after the last block."""
        return self.vit.norm(tokens)

    def feature_readout(self) -> OwnReadout:
        """Timm's own head, whose output another head may read."""
        return OwnReadout(self.vit)

    def own_readout(self) -> Readout:
        """The head that computes the model's scores unless another one is given."""
        return self.feature_readout()

    def readout(self, head: nn.Module | None, n_prefix: int) -> Readout:
        """The model's own head, or a head from `caap_lab.models.heads` that replaces it or reads its features.

        Args:
            head: A head; None for the model's own.
            n_prefix: Number of prefix tokens.
        """
        if head is None:
            return self.own_readout()
        if isinstance(head, ClassAndMeanHead):
            return ClassAndMeanReadout(head, n_prefix)
        return FeatureReadout(self.feature_readout(), head)
