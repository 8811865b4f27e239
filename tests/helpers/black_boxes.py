"""Small random classifiers whose inside the package does not know."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.maxxvit import MaxxVit, MaxxVitCfg
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from torch import Tensor, nn

from caap_lab import BlackBoxModel, Preprocessing
from helpers.models import randomise


class PlainNet(nn.Module):
    """Convolutions with a residual step, ReLUs in place, and a linear head on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "PlainNet's own"  # TransformerLens puts its own `name` on modules that it knows
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            *(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
        )
        self.step = nn.Conv2d(12, 12, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 7)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.drop(self.features(images))
        maps = nn.functional.relu(maps + self.step(maps), inplace=True)
        return self.head(maps.mean((2, 3)))


def _timm(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=7, **sizes)


def _efficientnet() -> nn.Module:
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c8"], ["ir_r1_k3_s2_e2_c12_se0.25"], ["ir_r1_k3_s2_e2_c16"]])
    return EfficientNet(blocks, num_classes=7, num_features=16, stem_size=8)


def _resmlp() -> nn.Module:
    return MlpMixer(
        7, img_size=32, patch_size=8, num_blocks=2, embed_dim=24, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine
    )


def _maxvit() -> nn.Module:
    config = MaxxVitCfg(embed_dim=(16, 32), depths=(1, 1), block_type=("M", "M"), stem_width=8)
    return MaxxVit(replace(config, transformer_cfg=replace(config.transformer_cfg, dim_head=8)), 32, num_classes=7)


_PLAIN = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "ls_init_value": 0.5}
_WINDOWS = {"window_size": 4, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 4)}
_STAGES = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int]]] = {
    "plain_net": (PlainNet, (24, 32), (3, 4)),
    "efficientnet": (_efficientnet, (48, 32), (6, 4)),
    "convnext": (
        _timm("convnext_atto", **_PLAIN),
        (64, 64),
        (4, 4),
    ),
    "swin": (_timm("swin_tiny_patch4_window7_224", img_size=32, **_WINDOWS), (32, 32), (4, 4)),
    "hiera": (_timm("hiera_tiny_224", img_size=(64, 64), **_STAGES), (64, 64), (4, 4)),
    "naflexvit": (_timm("naflexvit_base_patch16_gap", embed_dim=24, depth=2, num_heads=2), (32, 48), (2, 3)),
    "resmlp": (_resmlp, (32, 32), (4, 4)),
    "maxvit": (_maxvit, (32, 32), (4, 4)),
}
"""How a module is made, its image size and the grid of its maps; neither is square for all of them."""
BY_TRAIT = ("plain_net",)


def small_black_box(name: str = "plain_net", dtype: torch.dtype = torch.float32) -> BlackBoxModel:
    """A small random classifier, as if trained."""
    make, size, grid = SMALL[name]
    module = randomise(make)  # type: ignore[arg-type]
    return BlackBoxModel(
        module.to(dtype), grid=grid, preprocessing=Preprocessing(size, (0.5,) * 3, (0.5,) * 3), name=name
    )
