"""Methods that ignore the model, as baselines that every other method should beat."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

import caap_lab as cl
from caap_lab.models.base import HookedModel


def random(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, "batch row col"]:
    """A control: random scores, seeded by the image's pixels."""
    maps = []
    for image in images:
        seed = int((image.double().abs().sum() * 1e6).item()) % 2**31
        maps.append(torch.rand(model.grid, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(maps)


def register_random() -> None:
    """Register the method "random"."""
    cl.register("random", random, family="control", source="", class_specific=False, forwards=0, reads="pixels")
