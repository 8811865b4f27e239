"""The blur of RISE's insertion metric (Petsiuk et al. 2018), also used by the blurred-noise blank."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F


@cache
def rise_kernel(size: int = 11, sigma: float = 5.0) -> Float[Tensor, "size size"]:
    """RISE's blur kernel: a unit impulse under a Gaussian filter with reflecting borders; sums to 1."""
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1.0
    return torch.from_numpy(gaussian_filter(impulse, sigma))


def rise_blur(
    images: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch channel height width"]:
    """Images blurred in normalised space with RISE's kernel and zero padding, as in RISE's own evaluation."""
    channels = images.shape[1]
    kernel = rise_kernel().to(images).expand(channels, 1, -1, -1)
    return F.conv2d(images, kernel, padding=kernel.shape[-1] // 2, groups=channels)
