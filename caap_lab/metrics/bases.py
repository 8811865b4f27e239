"""Base images of insertion and deletion curves, which show where the image does not, by name."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from caap_lab.attribution.mda_blur import mda_blur
from caap_lab.blur import rise_blur
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Target

Pixels = Float[Tensor, "1 3 height width"]
Base = Callable[[Pixels, HookedModel, Target, str], Pixels]


def _pixel_value(image: Pixels, model: HookedModel, target: Target, probability: str, *, value: float) -> Pixels:
    """An image of one value before normalisation."""
    mean, std = (image.new_tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    return ((value - mean) / std).expand_as(image)


def _mda_blur(image: Pixels, model: HookedModel, target: Target, probability: str) -> Pixels:
    return mda_blur(model, image, target, probability)


BASES: dict[str, Base] = {
    "zero": lambda image, model, target, probability: torch.zeros_like(image),
    "black": partial(_pixel_value, value=0.0),
    "white": partial(_pixel_value, value=1.0),
    "rise_blur": lambda image, model, target, probability: rise_blur(image),
    "gaussian_blur": lambda image, model, target, probability: gaussian_blur(image, [11, 11], [5.0, 5.0]),
    "mda_blur": _mda_blur,
}
"""By name; each is called with the image, the model, the target and the protocol's `probability`.

- "zero": zero in normalised space, the grey of the data set's mean.
- "black", "white": zero and one in the image before it is normalised.
- "rise_blur": RISE's kernel, nearly a box of 11 pixels, with zero padding.
- "gaussian_blur": torchvision's Gaussian of the same size with sigma 5, a weaker blur with reflected borders.
- "mda_blur": RISE's kernel with 31 pixels and sigma 31, both enlarged by 2 until the target's probability is at most
  1 %, the kernel at most to 101: see `caap_lab.attribution.mda_blur`. It costs up to 36 forward passes.
"""


def base_image(name: str, image: Pixels, model: HookedModel, target: Target, probability: str = "auto") -> Pixels:
    """The base image of a name; see `BASES`."""
    return BASES[name](image, model, target, probability)
