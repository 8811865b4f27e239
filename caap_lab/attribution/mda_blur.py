"""The blurred image that MDA starts from: blurred enough that the model no longer sees the target."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.blur import rise_kernel
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Target

Image = Float[Tensor, "1 3 height width"]

KERNELS = range(31, 102, 2)
"""Kernel sizes to try, in pixels; sigma is the same number."""


@torch.no_grad()
def mda_blur(model: HookedModel, image: Image, target: Target, probability: str = "auto") -> Image:
    """The image under RISE's blur of 31 pixels (sigma 31), or the first wider one, up to 101, with p_c <= 1 %.

    As in the code of Walker et al. 2025, except that it leaves out images for which no blur brings p_c to 1 %; here
    they get the widest one.

    Args:
        model: The model.
        image: The image in normalised space, in which the blur pads with zeros.
        target: The target c.
        probability: How logits become p_c; see `caap_lab.models.probability`.
    """
    blurred = image
    for size in KERNELS:
        kernel = rise_kernel(size, float(size)).sum(dim=1).to(image)  # K = k k^T, as it sums to 1
        line = kernel.expand(3, 1, 1, -1)
        blurred = F.conv2d(image, line, padding=(0, size // 2), groups=3)
        blurred = F.conv2d(blurred, line.mT, padding=(size // 2, 0), groups=3)
        if scores_in_chunks(model, blurred, lambda made: made, target, 1, probability=probability) <= 0.01:
            break
    return blurred
