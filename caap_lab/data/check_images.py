"""Opening every image of a set before a long run: what cannot be used is known at once, not after days."""

from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError


def image_problems(images: ImageSet, progress: bool = True) -> dict[str, str]:
    """What is wrong with the images of a set: each photo is decoded, and each mask read.

    Args:
        images: The images that a run will use.
        progress: Show a progress bar.

    Returns:
        Image name to the sentence that says what is wrong; empty if all is well.
    """
    problems = {}
    for sample in images:
        try:
            _ = sample.image
            _ = sample.regions if sample.read_regions is not None else None
        except InputError as error:
            problems[sample.name] = str(error)
    return problems
