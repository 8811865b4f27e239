"""The parts to build a timm model from: arguments of its class, and weights under timm's names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from caap_lab.errors import InputError


@dataclass(frozen=True)
class Outputs:
    """The original model's outputs for images."""

    result: Tensor | None
    """Class scores, or the pooled features of a model without a classifier; None if it does not pool."""
    tokens: Tensor | None = None
    """All its tokens, if there is no result."""


@dataclass
class Blueprint:
    """A plan for a timm model, which the function of a family fills in from the original, part by part."""

    kind: type[nn.Module]
    """timm's class."""
    arguments: dict[str, Any]
    """Arguments of the class."""
    blocks: Sequence[nn.Module]
    """The original's blocks, whose outputs the twin's must match."""
    run: Callable[[nn.Module, Tensor], Outputs]
    """Runs a model of the original's class on images."""
    photos: dict[str, Any]
    """The preprocessing of the family's published checkpoints, in the terms of timm's configurations."""
    activation: type[nn.Module]
    """The activation function between the two layers of an MLP."""
    own_head: nn.Module | None = None
    """A module that replaces timm's classifier; None for one linear layer or no classifier."""
    head: nn.Module | None = None
    """A head of `caap_lab.models.heads` in place of timm's."""
    n_classes: int = 0
    """Number of class scores; 0 if the result is features."""
    absent: tuple[str, ...] = ()
    """Parts of timm's model that the original does not have, replaced by identities."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Weights by timm's names."""
    eps: dict[str, float] = field(default_factory=dict)
    """The eps of timm's norms, by name."""

    def layer(self, name: str, layer: Any) -> None:
        """Take the weight and bias of a linear, convolutional or norm layer; a missing bias becomes zeros.

        Raises:
            InputError: the layer is of another kind.
        """
        _check_kind(name, layer)
        self.tensors[f"{name}.weight"] = layer.weight
        bias = layer.bias
        self.tensors[f"{name}.bias"] = layer.weight.new_zeros(len(layer.weight)) if bias is None else bias
        if hasattr(layer, "eps"):
            self.eps[name] = layer.eps

    def fused(self, name: str, layers: Sequence[Any]) -> None:
        """Take several linear layers as one, with concatenated outputs.

        Raises:
            InputError: one of them is not a linear layer.
        """
        for layer in layers:
            _check_kind(name, layer)
        self.tensors[f"{name}.weight"] = torch.cat([layer.weight for layer in layers])
        zeros = [layer.weight.new_zeros(len(layer.weight)) for layer in layers]
        biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(layers, zeros, strict=True)]
        self.tensors[f"{name}.bias"] = torch.cat(biases)

    def classifier(self, layer: Any) -> None:
        """Take the layer that computes class scores; an Identity in a model without labels."""
        if isinstance(layer, nn.Identity):
            return
        if type(layer) is not nn.Linear:
            raise InputError(f"The classifier is {type(layer).__name__}; a linear layer is expected.")
        self.arguments["num_classes"] = self.n_classes = layer.out_features
        self.layer("head", layer)

    def build(self) -> nn.Module:
        """The timm model with a copy of these weights."""
        example = next(iter(self.tensors.values()))
        with torch.device("meta"):  # shapes only: no random weights, and no change of torch's generators
            model: Any = self.kind(**self.arguments)
        model.to_empty(device=example.device)
        for part in model.modules():
            if hasattr(part, "init_non_persistent_buffers"):
                part.init_non_persistent_buffers()
        for name in self.absent:
            setattr(model, name, nn.Identity())
        if self.own_head is not None:
            model.head = self.own_head
            model.num_classes = next(reversed(list(self.own_head.parameters()))).shape[0]
        copies = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        try:
            model.load_state_dict(copies, assign=True)
        except RuntimeError as error:
            raise InputError(f"The weights do not fit timm's {self.kind.__name__}: {error}") from error
        for name, eps in self.eps.items():
            model.get_submodule(name).eps = eps
        for block in model.blocks:
            block.mlp.act = self.activation()
        if getattr(model, "attn_pool", None) is not None:
            model.attn_pool.mlp.act = self.activation()
        model.pretrained_cfg = {**self.photos, "input_size": (model.in_chans, *model.patch_embed.img_size)}
        return model.to(example.dtype).eval()


def _check_kind(name: str, layer: Any) -> None:
    expected = nn.LayerNorm if "norm" in name.split(".")[-1] else nn.Linear | nn.Conv2d
    if not isinstance(layer, expected) or layer.weight is None:
        wanted = "LayerNorm with a weight" if expected is nn.LayerNorm else "linear or convolutional layer"
        raise InputError(
            f"{name} of the timm model would be made from {type(layer).__name__}, but a {wanted} is expected: the "
            "original was changed, or has other parts than published checkpoints."
        )
