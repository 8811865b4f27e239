"""Opening every image of a set before a long run: what cannot be used is known at once, not after days."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError
from caap_lab.models.preprocess import Preprocessing

_DELAY = 1.0  # seconds before a bar is shown: what is done by then needs none


def image_problems(images: ImageSet, progress: bool = True) -> dict[str, str]:
    """What is wrong with the images of a set: each photo is decoded, and each mask read.

    Args:
        images: The images that a run will use.
        progress: Show a progress bar, if it takes more than a moment.

    Returns:
        Image name to the sentence that says what is wrong: a photo or mask that is missing or damaged, a mask of
        another size than its photo, or one that marks nothing. Empty if all is well.
    """
    return _problems(images, _problem, "checking images", progress)


def unseen_objects(images: ImageSet, preprocessing: Preprocessing, progress: bool = True) -> dict[str, str]:
    """Images whose object cannot be told from the rest once a model's preprocessing has cropped them.

    Metrics of localisation need pixels inside and outside of the object. The object is that of the image's label where
    its class is annotated, else all objects together.

    Args:
        images: Images with masks.
        preprocessing: The model's.
        progress: Show a progress bar, if it takes more than a moment.

    Returns:
        Image name to the sentence that says what the model sees; empty if all is well.
    """

    def problem(sample: Sample) -> str | None:
        regions = sample.regions
        if regions.marks_nothing:
            return f"The mask of {sample.name} marks no object."
        masks = regions.masks
        whole = masks[sample.label] if sample.label in masks else np.logical_or.reduce(list(masks.values()))
        seen = preprocessing.mask(whole).numpy()
        kept = seen if regions.ignored is None else seen[~preprocessing.mask(regions.ignored).numpy()]
        if kept.any() and not kept.all():
            return None
        what = "nothing but the object" if kept.any() else "nothing of the object"
        return f"Of {sample.name}, the model sees {what}: the rest is cropped away or left open by the mask."

    return _problems(images, problem, "checking masks", progress)


def _problem(sample: Sample) -> str | None:
    sample.image.load()
    if sample.read_regions is not None and sample.regions.marks_nothing:
        return f"The mask of {sample.name} marks no object."
    return None


def _problems(images: ImageSet, problem: Callable[[Sample], str | None], what: str, progress: bool) -> dict[str, str]:
    def checked(sample: Sample) -> str | None:
        try:
            return problem(sample)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves Python's lock to others
        found = pool.map(checked, images.samples)
        shown = tqdm(found, desc=what, total=len(images), unit="image", delay=_DELAY, leave=False, disable=not progress)
        return {sample.name: said for sample, said in zip(images.samples, shown, strict=True) if said is not None}
