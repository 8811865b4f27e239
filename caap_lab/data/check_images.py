"""Check every image of a set before a long run, so that unusable ones are known at once, not after days."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError

_DELAY = 1.0  # seconds before a bar is shown; shorter checks show none


def image_problems(images: ImageSet, progress: bool = True) -> dict[str, str]:
    """Problems of the images of a set: each photo is decoded, and each mask read.

    This does not check whether a model's crop contains any of the object.

    Args:
        images: The images that a run will use.
        progress: Show a progress bar, if it takes more than a second.

    Returns:
        A sentence per image with a problem, by name: a photo or mask is missing or damaged, a mask differs in size from
        its photo, or marks nothing. Empty if there are none.
    """
    # Decoding lets other threads run. Each of them silences Pillow's warnings, and they may restore each other's
    # filters; the original ones are restored when all are done.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(len(images), os.cpu_count() or 1, 8)) as pool:
        warnings.simplefilter("ignore")
        found = pool.map(_problem, images.samples)
        shown = tqdm(
            found, "checking images", len(images), unit="image", delay=_DELAY, leave=False, disable=not progress
        )
        return {sample.name: problem for sample, problem in zip(images.samples, shown, strict=True) if problem}


def _problem(sample: Sample) -> str:
    try:
        sample.image.load()
        empty = sample.read_regions is not None and sample.regions.marks_nothing
    except InputError as error:
        return str(error)
    return f"The mask of {sample.name} marks no object." if empty else ""
