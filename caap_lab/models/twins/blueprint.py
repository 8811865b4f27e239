"""What a timm model is built from: arguments of its class, and weights under timm's names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from caap_lab.errors import InputError


@dataclass(frozen=True)
class Outputs:
    """What the original gives for images."""

    result: Tensor | None
    """Class scores, or the pooled features of a model without a classifier; None where it pools nothing."""
    tokens: Tensor | None = None
    """All its tokens, where there is no result."""


@dataclass
class Blueprint:
    """A timm model in the making. A family's function fills it from the original, part by part."""

    kind: type[nn.Module]
    """timm's class."""
    arguments: dict[str, Any]
    """How it is called."""
    blocks: Sequence[nn.Module]
    """The original's blocks, whose outputs the twin's have to give."""
    run: Callable[[nn.Module, Tensor], Outputs]
    """Runs a model of the original's class on images."""
    photos: dict[str, Any]
    """What the family's published checkpoints expect of photos, in the words of timm's configurations."""
    activation: type[nn.Module]
    """Between the two layers of an MLP."""
    own_head: nn.Module | None = None
    """What stands in the place of timm's classifier; None for one linear layer, or none."""
    head: nn.Module | None = None
    """A head of `caap_lab.models.heads` in place of timm's."""
    n_classes: int = 0
    """Number of class scores; 0 where the result is features."""
    absent: tuple[str, ...] = ()
    """timm's parts that the original does not have, and that pass on what they get."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Weights by timm's names."""
    eps: dict[str, float] = field(default_factory=dict)
    """What timm's norms add to the variance, by their names."""

    def layer(self, name: str, layer: Any) -> None:
        """Take the weight and bias of a linear, convolutional or norm layer; no bias is a bias of zeros.

        Raises:
            InputError: it is none of these.
        """
        _check_kind(name, layer)
        self.tensors[f"{name}.weight"] = layer.weight
        bias = layer.bias
        self.tensors[f"{name}.bias"] = layer.weight.new_zeros(len(layer.weight)) if bias is None else bias
        if hasattr(layer, "eps"):
            self.eps[name] = layer.eps

    def fused(self, name: str, layers: Sequence[Any]) -> None:
        """Take several linear layers as one, whose outputs stand behind each other.

        Raises:
            InputError: one is no linear layer.
        """
        for layer in layers:
            _check_kind(name, layer)
        self.tensors[f"{name}.weight"] = torch.cat([layer.weight for layer in layers])
        zeros = [layer.weight.new_zeros(len(layer.weight)) for layer in layers]
        biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(layers, zeros, strict=True)]
        self.tensors[f"{name}.bias"] = torch.cat(biases)

    def classifier(self, layer: Any) -> None:
        """Take the layer that gives class scores; a model with no labels has an Identity there."""
        if isinstance(layer, nn.Identity):
            return
        if type(layer) is not nn.Linear:
            raise InputError(f"The classifier is {type(layer).__name__}; a linear layer is expected.")
        self.arguments["num_classes"] = self.n_classes = layer.out_features
        self.layer("head", layer)

    def build(self) -> nn.Module:
        """The timm model with these weights, which are copied."""
        example = next(iter(self.tensors.values()))
        with torch.device("meta"):  # shapes only: no time for random weights, and no step of torch's generators
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
            f"{name} of the timm model would be made of {type(layer).__name__}, and a {wanted} is expected: the "
            "original was changed, or is built of other parts than published checkpoints."
        )
