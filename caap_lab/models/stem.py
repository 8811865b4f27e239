"""Convolutional stems: networks whose feature map is cut into patches, as in ViT-R26, ViT-R50 and MobileCLIP-B."""

from typing import Any

import torch
from timm.layers import HybridEmbed
from torch import nn
from torch.func import functional_call

from caap_lab.errors import InputError

_STEP = 2**8 * 3 * 5 * 7
"""Pixels by which an image is enlarged to measure a stride; every stride that divides it is found exactly."""


class Stem:
    """The stem of one model. A patch is a cell of its grid, whose size is the distance in pixels between two tokens.

    A token depends on more pixels than its cell if the convolutions overlap. The stride can differ from timm's
    `feature_ratio`: with padding, an image of 240 pixels has 8 tokens at a stride of 32, but a ratio of 30.
    """

    def __init__(self) -> None:
        self._measured: tuple[nn.Module, tuple[int, int]] | None = None

    def cell(self, embed: HybridEmbed) -> tuple[int, int]:
        """Distance between two tokens in pixels, as (height, width).

        Raises:
            InputError: the image is not a whole number of cells, so that tokens at its edge would have no cell.
        """
        backbone = embed.backbone
        if self._measured is None or self._measured[0] is not backbone:
            self._measured = backbone, stride_of(backbone, embed.in_chans, embed.img_size)
        stride = self._measured[1]
        cell = (stride[0] * embed.patch_size[0], stride[1] * embed.patch_size[1])
        size = tuple(embed.img_size)
        if any(cells * pixels > side for cells, pixels, side in zip(embed.grid_size, cell, size, strict=True)):
            raise InputError(
                f"This model's tokens are {cell[0]} x {cell[1]} pixels apart, and an image of {size[0]} x {size[1]} "
                "pixels is not a whole number of such cells. Build it with an img_size=... that is."
            )
        return cell


@torch.no_grad()
def stride_of(backbone: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """Distance between two positions of a network's feature map in pixels, as (height, width).

    Only shapes are computed, for an image and for a larger one.

    Args:
        backbone: The network, which is not changed.
        channels: Number of channels of its images.
        size: An image size that it accepts, as (height, width) in pixels.

    Raises:
        InputError: the stride is not a whole number of pixels.
    """
    state: dict[str, Any] = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    dtype = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    found = []
    for grown in (0, _STEP):
        image = torch.empty(1, channels, size[0] + grown, size[1] + grown, device="meta", dtype=dtype)
        features = functional_call(backbone, shapes, (image,))
        found.append((features[-1] if isinstance(features, (list, tuple)) else features).shape[-2:])
    grown_by = [after - before for before, after in zip(*found, strict=True)]
    if any(count < 1 or _STEP % count for count in grown_by):
        raise InputError(
            f"The stem of this model, {type(backbone).__name__}, has {list(found[0])} positions for images of "
            f"{list(size)} pixels, so its stride is not a whole number of pixels."
        )
    return _STEP // grown_by[0], _STEP // grown_by[1]
