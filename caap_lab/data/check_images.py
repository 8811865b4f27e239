"""Opening every image of a set before a long run: what cannot be used is known at once, not after days."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError

_DELAY = 1.0  # seconds before a bar is shown: what is done by then needs none


def image_problems(images: ImageSet, progress: bool = True) -> dict[str, str]:
    """What is wrong with the images of a set: each photo is decoded, and each mask read.

    Whether a model's crop leaves anything of an object, this does not tell.

    Args:
        images: The images that a run will use.
        progress: Show a progress bar, if it takes more than a moment.

    Returns:
        Image name to the sentence that says what is wrong: a photo or mask that is missing or damaged, a mask of
        another size than its photo, or one that marks nothing. Empty if all is well.
    """
    # Decoding lets other threads run. Each of them silences Pillow's warnings, and they may restore each other's
    # filters; what was before comes back when all are done.
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
