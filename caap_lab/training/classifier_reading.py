"""Photos as a model's input, read by several processes: preprocessed as usual, or as random crops for training."""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from caap_lab.data.digest import content_digest
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.preprocess import Preprocessing

_AREA = (0.35, 1.0)
"""Fraction of a photo that a random crop covers; from 0.08 on, as for training from scratch, objects would be cut."""
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10


class Photo(NamedTuple):
    """One photo as a model's input, or the reason why it cannot be read."""

    pixels: Float[Tensor, "3 height width"] | None
    digest: str
    """Hash of its pixels as stored and of its label."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Reading:
    """How photos are read and sent to the device; it does not affect results."""

    batch_size: int
    workers: int
    """Processes that read photos; 0 reads them in the main process."""
    progress: bool


class _Plain(Dataset[Photo]):
    def __init__(self, images: ImageSet, preprocessing: Preprocessing) -> None:
        self.images, self.preprocessing = images, preprocessing

    def __getitem__(self, place: int) -> Photo:
        sample, names = self.images[place], self.images.class_names
        try:
            image = sample.image
            told = None if names is None else names.names.__getitem__
            return Photo(self.preprocessing(image), content_digest(image, (sample.label,), {}, None, told))
        except InputError as error:
            return Photo(None, "", str(error))


class _Cropped(Dataset[Photo]):
    def __init__(self, images: ImageSet, preprocessing: Preprocessing, seed: Sequence[int]) -> None:
        self.images, self.seed = images, tuple(seed)
        self.whole = replace(preprocessing, crop_pct=1.0, crop_mode="squash")

    def __getitem__(self, place: int) -> Photo:
        rng = np.random.Generator(np.random.PCG64([*self.seed, place]))
        return Photo(self.whole(random_crop(self.images[place].image, rng)), "")


def read_photos(
    images: ImageSet, places: Sequence[int], preprocessing: Preprocessing, reading: Reading
) -> Iterator[list[Photo]]:
    """Photos by index in the set, in batches and in the given order; unreadable ones come with the reason."""
    return _batches(_Plain(images, preprocessing), places, reading)


def read_crops(
    images: ImageSet, places: Sequence[int], preprocessing: Preprocessing, reading: Reading, seed: Sequence[int]
) -> Iterator[list[Photo]]:
    """Random crops of photos, half of them mirrored; a crop depends only on the seed and the photo's index."""
    return _batches(_Cropped(images, preprocessing, seed), places, reading)


def pixels_of(photos: list[Photo], device: torch.device) -> Float[Tensor, "photo 3 height width"]:
    """A batch of photos that can all be read.

    Raises:
        InputError: one of them cannot be read.
    """
    for photo in photos:
        if photo.pixels is None:
            raise InputError(photo.problem)
    return torch.stack([photo.pixels for photo in photos if photo.pixels is not None]).to(device)


def random_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of a photo, of 35 % to all of its area and nearly square, mirrored or not (Szegedy et al. 2015)."""
    width, height = image.size
    # For very elongated photos, which no draw may fit: the largest nearly square part.
    across, down = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            across, down = wide, tall
            break
    left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
    part = image.crop((left, top, left + across, top + down))
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


def _batches(photos: Dataset[Photo], places: Sequence[int], reading: Reading) -> Iterator[list[Photo]]:
    loader: Any = DataLoader(
        photos,
        reading.batch_size,
        sampler=list(places),
        num_workers=reading.workers,
        collate_fn=list,
        worker_init_fn=_leave_ctrl_c,
        prefetch_factor=4 if reading.workers else None,
    )
    return iter(loader)


def _leave_ctrl_c(worker: int) -> None:
    """Ignore Ctrl-C, which reaches all processes: the main process stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
