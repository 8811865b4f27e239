"""The bundled demo backbones: timm architectures small enough to train on two CPU cores."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from caap_lab.models.demo_world import CLASS_NAMES, IMAGE_SIZE

D_MODEL = 64
MEAN = STD = (0.5, 0.5, 0.5)

_VIT: dict[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": 8,
    "embed_dim": D_MODEL,
    "depth": 8,
    "num_heads": 4,
    "num_classes": len(CLASS_NAMES),
}


@dataclass(frozen=True)
class Backbone:
    """A timm architecture and its arguments, as the model card records them and loading reads them."""

    family: str
    """The kind of model that it represents."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture."""
    architecture: str = "VisionTransformer"
    """ "VisionTransformer" or "ResNet", timm's."""
    head: str = "linear"
    """ "linear", in timm's model, or "cls+mean": a linear layer on class token and mean patch, as in DINOv2."""
    start: str | None = None
    """Backbone from whose bundled weights training starts."""


BACKBONES: dict[str, Backbone] = {
    "demo": Backbone("plain ViT", _VIT),
    "demo-clip": Backbone(
        "CLIP-like ViT: LayerNorm before the first block, QuickGELU",
        {**_VIT, "pre_norm": True, "act_layer": "quick_gelu"},
    ),
    "demo-dinov2": Backbone(
        "DINOv2-like ViT: LayerScale, head on the class token and the mean patch",
        {**_VIT, "num_classes": 0, "init_values": 1.0},
        head="cls+mean",
    ),
    "demo-deit3": Backbone(
        "DeiT3-like ViT: LayerScale, no position embedding on the class token",
        {**_VIT, "no_embed_class": True, "init_values": 1.0},
    ),
    "demo-spurious": Backbone("plain ViT that has learned a spurious cue", _VIT, start="demo"),
    "demo-cnn": Backbone(
        "ResNet with 8 x 8 cells from its second stage on",
        {
            "layers": (1, 1, 1, 1),
            "channels": (32, 64, 64, 96),
            "output_stride": 8,
            "num_classes": len(CLASS_NAMES),
        },
        architecture="ResNet",
    ),
}


def build(architecture: str, arguments: dict[str, Any]) -> VisionTransformer | ResNet:
    """The untrained timm model that a `Backbone`, or a model card, describes."""
    if architecture == "ResNet":
        return ResNet(block=BasicBlock, **arguments)  # type: ignore[arg-type]  # timm expects the class
    if architecture == "VisionTransformer":
        return VisionTransformer(**arguments)
    raise ValueError(f"unknown architecture {architecture!r}")


class TrainedBackbone(nn.Module):
    """A backbone for training: class scores, and scores of each patch from an auxiliary layer.

    The auxiliary layer is discarded after training.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = build(backbone.architecture, backbone.arguments)
        width = self.body.num_features
        self.head = nn.Linear(2 * width, len(CLASS_NAMES)) if backbone.head == "cls+mean" else None
        self.patch_head = nn.Linear(width, len(CLASS_NAMES) + 1)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch patch patch_classes"]]:
        """Class scores [B, 10], and patch scores [B, patch, 11] whose last column is "no object"."""
        features = self.body.forward_features(x)
        if isinstance(self.body, ResNet):
            return self.body.forward_head(features), self.patch_head(features.flatten(2).mT)
        patches = features[:, self.body.num_prefix_tokens :]
        if self.head is None:
            return self.body.forward_head(features), self.patch_head(patches)
        return self.head(torch.cat([features[:, 0], patches.mean(1)], dim=1)), self.patch_head(patches)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save: the body's weights under timm's names, and the head's as head.weight and head.bias."""
        kept = dict(self.body.state_dict())
        if self.head is not None:
            kept |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        return kept

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`; rounded weights become float32."""
        own = self.tensors()
        if own.keys() != tensors.keys():
            raise ValueError(f"the weights do not fit: {sorted(own.keys() ^ tensors.keys())[:5]}")
        for name, value in own.items():
            value.copy_(tensors[name])
