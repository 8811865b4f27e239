"""From the last tokens to class scores: a common interface for all kinds of heads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.attention_pool import PoolingAttention, pooling_attention
from caap_lab.models.heads import ClassAndMeanHead
from caap_lab.models.spec import ViTSpec
from caap_lab.models.width import passes_on

Measure = Callable[[Sequence[nn.Module], int, str], int]
"""Measures the output width of a chain of modules: (modules, number of input values, head's name for errors)."""


class Readout(ABC):
    """A model's head: it pools normalised tokens and computes class scores from the result."""

    class_layers: int = 1
    """Number of last blocks whose class tokens it reads."""

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return True

    @property
    def adds_positions(self) -> bool:
        """True if pooling adds positions again, and so needs all tokens."""
        return False

    @property
    def attention(self) -> PoolingAttention | None:
        """The attention that pools, or None."""
        return None

    @abstractmethod
    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch *pooled"]:
        """The pooled features from which class scores are computed.

        Args:
            normalized: All tokens after the final norm.
            earlier: Class tokens of the `class_layers - 1` blocks before the last, earliest first, after that norm.
        """

    @abstractmethod
    def scores(self, pooled: Float[Tensor, "batch *pooled"]) -> Float[Tensor, "batch classes"]:
        """Logits."""

    @abstractmethod
    def n_classes(self, d_model: int, measure: Measure) -> int:
        """Number of scores, measured because a head may have been replaced without updating timm's model."""

    @property
    @abstractmethod
    def classifiers(self) -> Sequence[nn.Module]:
        """The modules that compute class scores; if there are two, the model's scores are their mean."""

    def pooled_shape(self, d_model: int) -> tuple[int, ...]:
        """Shape of the pooled features of one image."""
        return (d_model,)

    def adapt(self, spec: ViTSpec) -> ViTSpec:
        """The spec of the model with this head."""
        return spec


class OwnReadout(Readout):
    """The head of a timm model: pooling, norm and classifier, under the names that its Vision Transformers share."""

    def __init__(self, vit: Any) -> None:
        self.vit = vit

    @property
    def has_classifier(self) -> bool:
        """False if timm's model was built without a classifier."""
        return not passes_on(self.vit.head)

    @property
    def adds_positions(self) -> bool:
        """True for some poolings by attention."""
        return getattr(self.vit.attn_pool, "pos_embed", None) is not None

    @property
    def attention(self) -> PoolingAttention | None:
        """Timm's pooling by attention, which in some families does not read prefix tokens."""
        reads_prefix = getattr(self.vit, "pool_include_prefix", True)
        return pooling_attention(self.vit.attn_pool, 0 if reads_prefix else self.vit.num_prefix_tokens)

    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch d_pooled"]:
        """The result of timm's own pooling."""
        return self.vit.pool(normalized)

    def scores(self, pooled: Float[Tensor, "batch d_pooled"]) -> Float[Tensor, "batch classes"]:
        """Logits, or the image's features if timm's model has no classifier."""
        return self.vit.head(self.vit.head_drop(self.vit.fc_norm(pooled)))

    def n_classes(self, d_model: int, measure: Measure) -> int:
        """Number of scores, or of features."""
        return measure(self.modules, d_model, "head")

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """Timm's head after its norm."""
        return (self.vit.head,)

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that compute scores from the pooled features."""
        return [self.vit.fc_norm, self.vit.head]


class DistilledReadout(Readout):
    """The two heads of a distilled DeiT, on the class and the distillation token; the score is their mean."""

    def __init__(self, vit: Any) -> None:
        self.vit = vit

    @property
    def has_classifier(self) -> bool:
        """False if timm's model was built without a classifier."""
        return not passes_on(self.vit.head)

    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch 2 d_model"]:
        """The two tokens."""
        return normalized[:, :2]

    def scores(self, pooled: Float[Tensor, "batch 2 d_model"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        vit = self.vit
        return (vit.head(vit.head_drop(pooled[:, 0])) + vit.head_dist(vit.head_drop(pooled[:, 1]))) / 2

    def n_classes(self, d_model: int, measure: Measure) -> int:
        """Number of scores of each head.

        Raises:
            InputError: the two differ.
        """
        own = measure([self.vit.head], d_model, "head")
        distilled = measure([self.vit.head_dist], d_model, "head_dist")
        if own != distilled:
            raise InputError(
                f"This distilled model's head returns {own} scores and its head_dist {distilled}, but the model's "
                "scores are their mean: replace both with heads for the same classes."
            )
        return own

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """Both heads."""
        return (self.vit.head, self.vit.head_dist)

    def pooled_shape(self, d_model: int) -> tuple[int, ...]:
        """Two tokens."""
        return (2, d_model)


class FeatureReadout(Readout):
    """A head on the features that a timm model's own head returns, such as zero-shot classification."""

    def __init__(self, own: OwnReadout, head: nn.Module) -> None:
        self.own = own
        self.head = head

    @property
    def adds_positions(self) -> bool:
        """True for some poolings by attention."""
        return self.own.adds_positions

    @property
    def attention(self) -> PoolingAttention | None:
        """Timm's own pooling by attention, or None."""
        return self.own.attention

    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch d_pooled"]:
        """The result of timm's own pooling."""
        return self.own.pool(normalized, earlier)

    def scores(self, pooled: Float[Tensor, "batch d_pooled"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.head(self.own.scores(pooled))

    def n_classes(self, d_model: int, measure: Measure) -> int:
        """Number of scores."""
        return measure([*self.own.modules, self.head], d_model, "head")

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """The head on timm's features."""
        return (self.head,)


class ClassAndMeanReadout(Readout):
    """DINOv2's public classifiers: class tokens of the last blocks, and the mean patch of the last one."""

    def __init__(self, head: ClassAndMeanHead, n_prefix: int) -> None:
        self.head = head
        self.n_prefix = n_prefix
        self.class_layers = head.class_layers

    def pool(
        self, normalized: Float[Tensor, "batch token d_model"], earlier: Sequence[Float[Tensor, "batch d_model"]] = ()
    ) -> Float[Tensor, "batch d_pooled"]:
        """Class tokens, earliest block first, then the mean patch.

        Raises:
            InputError: the number of class tokens is not the one that the head reads.
        """
        if len(earlier) != self.class_layers - 1:
            raise InputError(f"This head also needs the class tokens of {self.class_layers - 1} earlier blocks.")
        return self.head.pool(normalized, earlier, self.n_prefix)

    def scores(self, pooled: Float[Tensor, "batch d_pooled"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.head(pooled)

    def n_classes(self, d_model: int, measure: Measure) -> int:
        """Number of scores."""
        return measure([self.head], (self.class_layers + 1) * d_model, "head")

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """The linear layer on the pooled features."""
        return (self.head.linear,)

    def pooled_shape(self, d_model: int) -> tuple[int, ...]:
        """Length of all class tokens and the mean patch in one vector."""
        return ((self.class_layers + 1) * d_model,)

    def adapt(self, spec: ViTSpec) -> ViTSpec:
        """The spec of a model whose head reads the class token and all patches."""
        return replace(spec, pool="cls+mean", read_tokens=(0, *range(spec.n_prefix, spec.n_tokens)))
