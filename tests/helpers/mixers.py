"""Small random MLP-Mixers."""

from typing import Any

import torch
from timm.layers import GluMlp
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn

from caap_lab import HookedMixer
from helpers.models import randomise

KINDS: dict[str, dict[str, Any]] = {
    "mixer": {},
    "gmixer": {"mlp_layer": GluMlp, "act_layer": nn.SiLU, "mlp_ratio": (1.0, 4.0)},
    "odd_grid": {"img_size": (40, 24), "stem_norm": True},
}


def small_mixer(kind: str = "mixer", dtype: torch.dtype = torch.float32) -> HookedMixer:
    sizes = {"img_size": 32, "patch_size": 8, "num_blocks": 3, "embed_dim": 24, "num_classes": 7}
    return HookedMixer(randomise(lambda: MlpMixer(**{**sizes, **KINDS[kind]}))).to(dtype)


def images_for(model: HookedMixer, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *model.image_size, generator=generator).to(model.dtype)
