"""From photos to a model's input tensor and back, with the geometry of timm's evaluation transform."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from timm.data import resolve_model_data_config
from timm.data.transforms_factory import transforms_imagenet_eval
from timm.layers import HybridEmbed, PatchEmbed, to_2tuple
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.device_dtype import plain_defaults
from caap_lab.models.images import load_image
from caap_lab.models.mask_pixels import object_pixels

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


MOST_PIXELS = 8192
"""Longest side of a model's input; a larger one is a mistake that would fill the memory."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a model: how photos become input tensors.

    ```python
    x = model.preprocessing(image)                # [3, height, width], the model's input
    inside = model.preprocessing.mask(mask)       # the mask, cropped in the same way
    ```

    Raises:
        InputError: a setting is invalid; the message says which.
    """

    image_size: tuple[int, int]
    """Pixels as (height, width)."""
    mean: tuple[float, ...]
    """Subtracted from red, green, blue on the scale 0 to 1."""
    std: tuple[float, ...]
    """Then divided by."""
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """Fraction of the resized short side that the crop keeps."""
    crop_mode: str = "center"
    """As in timm: "center" crops the middle, "squash" ignores the aspect ratio, "border" pads."""

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            object.__setattr__(self, field, _three_numbers(field, getattr(self, field)))
        if not isinstance(self.image_size, (tuple, list)):
            raise InputError(f"image_size={self.image_size!r} is not a (height, width) in pixels.")
        object.__setattr__(self, "image_size", tuple(self.image_size))
        if any(not 0 <= value <= 1 for value in self.mean):
            raise InputError(f"mean={self.mean} is not on the scale 0 to 1; divide by 255 if it is on 0 to 255.")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std={self.std} must be greater than 0 in every channel.")
        if len(self.image_size) != 2 or any(not isinstance(side, int) or side < 1 for side in self.image_size):
            raise InputError(f"image_size={self.image_size} is not a (height, width) in pixels.")
        check_image_size(self.image_size)
        number = isinstance(self.crop_pct, (int, float)) and not isinstance(self.crop_pct, bool)
        if not number or not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct={self.crop_pct!r} is not a number above 0 and at most 1.")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation={self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}.")
        if self.crop_mode not in CROP_MODES:
            raise InputError(f"crop_mode={self.crop_mode!r} is not one of {', '.join(CROP_MODES)}.")

    @classmethod
    def from_timm(
        cls, model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> "Preprocessing":
        """The preprocessing in a timm model's configuration, at the image size that the model was built for.

        Args:
            model: A timm model; its image size is read from its patch embedding, or else from its configuration.
            mean: Mean of each colour, instead of the configured one.
            std: Standard deviation of each colour, instead of the configured one.
        """
        config = resolve_model_data_config(model)
        channels, *size = config["input_size"]
        patch_embed: Any = getattr(model, "patch_embed", None)
        if isinstance(getattr(model, "stem", None), PatchEmbed):  # the name in an MLP-Mixer
            patch_embed = model.stem
        if patch_embed is not None:
            size = to_2tuple(getattr(patch_embed, "img_size", None) or size)
            projection = getattr(patch_embed, "proj", None)
            if isinstance(patch_embed, HybridEmbed):  # which projects feature maps
                projection, channels = None, patch_embed.in_chans
            weight = getattr(projection, "weight", None)  # adapters expose it, unlike the number of channels
            channels = channels if weight is None or weight.ndim != 4 else weight.shape[1]
        if channels != 3:
            raise InputError(f"This model reads {channels} channels; photos have 3.")
        return cls(
            image_size=tuple(size),
            mean=tuple(config["mean"] if mean is None else mean),
            std=tuple(config["std"] if std is None else std),
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
        )

    def __call__(self, image: str | Path | Image.Image) -> Float[Tensor, "3 height width"]:
        """One photo as a float32 tensor, identical to the result of timm's transform.

        Raises:
            InputError: the photo cannot be read; see `load_image`.
        """
        pixels = self._geometry(load_image(image), self.interpolation, self.mean)
        return (pixels.float().div(255) - self._column(self.mean)) / self._column(self.std)

    def mask(self, mask: Image.Image | np.ndarray | Tensor) -> Bool[Tensor, "height width"]:
        """A mask of a photo, resized and cropped like the photo; True where the object is.

        Args:
            mask: A mask of the photo's size: a PIL image, whose EXIF orientation is applied, or one channel of numbers.
                The object is everything that is not zero, or at least half of white along soft edges; see
                `caap_lab.models.mask_pixels.object_pixels`. The padding of crop mode "border" is outside the object.

        Raises:
            InputError: the mask has several channels, no pixels, NaN or negative numbers, or is ambiguous.
        """
        if isinstance(mask, Image.Image):
            image_format, mask = mask.format, ImageOps.exif_transpose(mask)
            mask.format = image_format
        elif isinstance(mask, Tensor):
            mask = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
        elif not isinstance(mask, np.ndarray):
            raise InputError(f"Expected a mask as a PIL image, array or tensor, not {type(mask).__name__}.")
        if isinstance(mask, np.ndarray) and (mask.ndim != 2 or 0 in mask.shape):
            raise InputError(f"A mask must have one channel, [height, width]; this one is {list(mask.shape)}.")
        inside = object_pixels(mask, "The mask").inside
        # Three equal channels, because timm pads "border" with one value per channel.
        image = Image.fromarray(np.where(inside, np.uint8(255), np.uint8(0))).convert("RGB")
        return self._geometry(image, "nearest", (0.0, 0.0, 0.0))[0] > 0

    def to_rgb(self, tensor: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
        """The picture in a preprocessed tensor: without normalisation, values clipped to 0 to 255."""
        if not isinstance(tensor, Tensor) or tensor.ndim != 3 or tensor.shape[0] != 3:
            shape = list(getattr(tensor, "shape", ()))
            raise InputError(f"Expected one preprocessed image [3, height, width], not {shape}.")
        return self.to_rgb_all(tensor[None])[0]

    def to_rgb_all(self, batch: Float[Tensor, "batch 3 height width"]) -> UInt8[np.ndarray, "batch height width 3"]:
        """The pictures in a batch of preprocessed images; see `to_rgb`."""
        pixels = (batch.detach().cpu().float() * self._column(self.std)).add_(self._column(self.mean))
        pixels.nan_to_num_(0).clamp_(0, 1).mul_(255).round_()
        return torch.stack(pixels.byte().unbind(1), dim=-1).numpy()

    def _geometry(self, image: Image.Image, interpolation: str, border: tuple[float, ...]) -> Tensor:
        """An image resized and cropped by timm's transform, as uint8 [3, h, w]; `border` is the colour of padding."""
        transform = transforms_imagenet_eval(
            img_size=self.image_size,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=interpolation,
            mean=border,
            use_prefetcher=True,  # skips conversion to float and normalisation
        )
        with plain_defaults():  # the transform creates tensors with torch's defaults
            return transform(image)

    @staticmethod
    def _column(values: tuple[float, ...]) -> Float[Tensor, "3 1 1"]:
        return torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1)


def check_image_size(size: tuple[int, int]) -> None:
    """Raise InputError for an input size that no model runs on.

    Raises:
        InputError: a side is longer than `MOST_PIXELS`.
    """
    if max(size) > MOST_PIXELS:
        raise InputError(f"image_size={size} is more than {MOST_PIXELS} pixels per side; models use a few hundred.")


def as_batch(images: Any, preprocessing: Preprocessing) -> Float[Tensor, "batch 3 height width"]:
    """Images in any accepted form as one batch.

    Photos become float32 on the CPU. Tensors count as preprocessed: they keep their device and number format, and
    photos in the same list are moved to their device.

    Args:
        images: A path, a PIL image, a uint8 array [height, width, 3], a preprocessed tensor [3, H, W] or
            [B, 3, H, W], or a list of these, taken in order.
        preprocessing: What the model expects.

    Raises:
        InputError: there are no images, or one has the wrong type, size or number format, or holds NaN or infinity.
    """
    parts = list(_parts(images, preprocessing))
    if not parts:
        raise InputError("No images were given.")
    if len(parts) == 1:
        return parts[0]
    device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
    return torch.cat([part.to(device) for part in parts])


def _parts(images: Any, preprocessing: Preprocessing) -> Iterator[Tensor]:
    if isinstance(images, (list, tuple)):
        if _alike(images, preprocessing):  # checked together, since each check waits for a GPU
            yield _checked(torch.stack(list(images)), preprocessing)
            return
        for image in images:
            yield from _parts(image, preprocessing)
    elif isinstance(images, Tensor):
        yield _checked(images, preprocessing)
    elif isinstance(images, np.ndarray):
        yield preprocessing(_photo(images))[None]
    elif isinstance(images, (str, Path, Image.Image)):
        yield preprocessing(images)[None]
    else:
        inside = " It has one: give its .image." if hasattr(images, "image") else ""
        raise InputError(
            f"{type(images).__name__} is not an image.{inside} Give a path, a PIL image, a uint8 array "
            "[height, width, 3], a preprocessed tensor [3, H, W] or [B, 3, H, W], or a list of these."
        )


def _alike(images: Sequence[Any], preprocessing: Preprocessing) -> bool:
    """True for single preprocessed images in one number format on one device."""
    shape = (3, *preprocessing.image_size)
    if not all(isinstance(image, Tensor) and image.shape == shape for image in images):
        return False
    return len({(image.dtype, image.device) for image in images}) == 1


def _photo(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(
            f"An array counts as a photo and must be uint8 [height, width, 3]; this one is {array.dtype} "
            f"{list(array.shape)}. A preprocessed image must be a torch tensor [3, H, W]."
        )
    return Image.fromarray(array)


def _checked(tensor: Tensor, preprocessing: Preprocessing) -> Tensor:
    height, width = preprocessing.image_size
    if tensor.ndim not in (3, 4) or tuple(tensor.shape[-3:]) != (3, height, width):
        raise InputError(
            f"This model takes preprocessed tensors [3, {height}, {width}] or [batch, 3, {height}, {width}]; "
            f"this one is {list(tensor.shape)}. Photos of any size can be given as a path, PIL image or uint8 array, "
            "and are resized. For tensors of another size, load the model with image_size=(height, width), or use "
            "model.at_image_size((height, width))."
        )
    if not tensor.is_floating_point():
        raise InputError(
            f"A preprocessed tensor must hold floating-point numbers; this one is {tensor.dtype}. "
            "Give pixels as a PIL image or as a uint8 array [height, width, 3], so that they are normalised."
        )
    if tensor.numel() == 0:
        raise InputError("No images were given: the tensor's batch is empty.")
    if tensor.is_meta:
        raise InputError("The tensor is on the device 'meta', and has no values.")
    batch = tensor if tensor.ndim == 4 else tensor[None]
    values = batch.detach().flatten(1)
    low, high = values.amin(dim=1), values.amax(dim=1)  # on CPUs ten times as fast as aminmax(dim=1)
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise InputError("The tensor holds NaN or infinity.")
    _refuse_pixels(batch, low, high, preprocessing)
    return batch


_FAR = 16
"""Multiple of white: above the values of random inputs, and below all but very dark photos on the scale 0 to 255."""


def _refuse_pixels(batch: Tensor, low: Tensor, high: Tensor, preprocessing: Preprocessing) -> None:
    """Raise InputError for an image of pixel values from 0 to 255 that was not normalised.

    White, the brightest pixel, is at most `white` after normalisation. Pixel values are never negative and exceed it:
    by far, or as whole numbers if the picture is dark.
    """
    white = max((1 - mean) / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True))
    bright = (low >= 0) & (high > white * 1.01)
    if not bool(bright.any()):
        return
    for image, highest in zip(batch[bright].detach(), high[bright], strict=True):
        if highest > _FAR * max(white, 1) or bool((image == image.round()).all()):
            raise InputError(
                f"This tensor's values range from {float(image.min()):.4g} to {float(highest):.4g}, like pixels from 0 "
                f"to 255; tensors count as preprocessed, and white is at most {white:.3g} for this model. Give pixels "
                "as a PIL image or as a uint8 array [height, width, 3], or normalise them: (pixels / 255 - mean) / "
                "std, with mean and std of model.preprocessing."
            )


def _three_numbers(field: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"{field}={values!r} is not three numbers, one each for red, green and blue.") from None
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{field}={values!r} is not three numbers, one each for red, green and blue.")
    return numbers
