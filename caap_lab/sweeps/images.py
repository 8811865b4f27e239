"""The images of a sweep: a data set, or any images for the model, each with a name determined by its content."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from caap_lab.bench.pairing import label_of, with_model_classes
from caap_lab.bench.target_rule import TargetRule, reads_label
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.digests.hashing import hex_digest
from caap_lab.digests.tensors import raw_bytes
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import check_images

Mask = Bool[np.ndarray, "height width"]
Masks = Sequence[Mask | Bool[Tensor, "height width"]] | Mask | Bool[Tensor, "height width"]


@dataclass(frozen=True, eq=False)
class SweepImage:
    """One image of a sweep."""

    source: str
    sample: Sample
    read: Callable[[], Float[Tensor, "1 3 height width"]]
    """The image as the model's input."""
    digest: str
    """Hash of the image, its label and its masks; the key of its trials."""
    mask: Mask | None = None
    """The object's pixels at the resolution of the model's input, if the caller gave them."""
    images: ImageSet | None = None
    """The data set of the image."""


def sweep_images(
    model: HookedModel, images: ImageSet | Images, rule: TargetRule | int, masks: Masks | None
) -> list[SweepImage]:
    """All images of a sweep.

    Args:
        model: The model.
        images: A data set, or images in any form that the model accepts.
        rule: The target of each image, see `caap_lab.bench.target_rule`.
        masks: Masks of images that are not a data set.

    Raises:
        InputError: an image, its label or a mask cannot be used.
    """
    if isinstance(images, ImageSet):
        if masks is not None:
            raise InputError("masks=... belong to images of your own; a data set has its own masks.")
        for sample in images if reads_label(rule) else ():
            label_of(sample, images, model)  # raises InputError here, before anything runs
        return [
            SweepImage(
                images.source,
                with_model_classes(sample, images, model),
                partial(_read_sample, model, sample),
                images.digest_of(sample.name),
                images=images,
            )
            for sample in images
        ]
    if reads_label(rule):
        raise InputError("target='label' needs a data set with labels, as cl.open_images gives it.")
    singles = check_images(images)
    checked = [None] * len(singles) if masks is None else _checked(masks, len(singles), model)
    return [
        SweepImage(
            "images",
            Sample(name, partial(_seen, model, single)),
            partial(model.preprocess, single),
            name.rpartition(" ")[2],
            mask,
        )
        for single, mask in zip(singles, checked, strict=True)
        for name in [_name(model, single, mask)]
    ]


def _read_sample(model: HookedModel, sample: Sample) -> Tensor:
    return model.preprocess(sample.image)


def _seen(model: HookedModel, image: Images) -> Image.Image:
    return Image.fromarray(model.preprocessing.to_rgb(model.preprocess(image)[0]))


def _name(model: HookedModel, image: Any, mask: Mask | None) -> str:
    """The file's name and a hash of the model's input, so that a resumed run finds the trials of the image."""
    mask_bytes = b"" if mask is None else mask.tobytes()
    content = hex_digest(raw_bytes(model.preprocess(image).float()), mask_bytes, size=6)
    return f"{Path(image).name if isinstance(image, (str, Path)) else 'image'} {content}"


def _checked(masks: Masks, count: int, model: HookedModel) -> list[Mask]:
    several: list[Any] = [masks] if isinstance(masks, (np.ndarray, Tensor)) and masks.ndim == 2 else list(masks)
    if len(several) != count:
        raise InputError(f"{count} images need one mask each; {len(several)} were given.")
    arrays = [mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask for mask in several]
    for number, mask in enumerate(arrays):
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != model.image_size:
            kind = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InputError(
                f"Mask {number} must be bool {list(model.image_size)}, as large as the model's input; it is "
                f"{kind}. Use model.preprocessing.mask(...) to make one from a mask of the photo."
            )
    return arrays
