"""The generated demo scenes as a data set: labels are known at once, pixels are drawn when they are read."""

from functools import lru_cache, partial

from PIL import Image

from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.data.scenes import CLASS_NAMES, Kind, Scene, demo_scene, scene_labels
from caap_lab.models.classes import ClassNames

DEMO_SET_SCENES, DEMO_SET_SEED = 1000, 30_000
"""No training, accuracy table or page of the documentation uses these scenes."""


def open_demo(kind: Kind, source: str) -> ImageSet:
    """A set of 1000 scenes of a kind, with digits that no bundled model was trained on.

    Args:
        kind: As in `demo_images`.
        source: The text that the user gave.

    Raises:
        InputError: there is no such kind.
    """
    labels = scene_labels(kind, DEMO_SET_SCENES, DEMO_SET_SEED)
    samples = (
        Sample(f"{kind}-{index:06d}", partial(_read_image, kind, index), label, partial(_read_regions, kind, index))
        for index, label in enumerate(labels)
    )
    return ImageSet("demo", source, tuple(samples), ClassNames(CLASS_NAMES))


@lru_cache(maxsize=8)  # image and regions of a scene are usually read one after the other
def _scene(kind: Kind, index: int) -> Scene:
    return demo_scene(kind, index, DEMO_SET_SEED)


def _read_image(kind: Kind, index: int) -> Image.Image:
    return _scene(kind, index).image.copy()


def _read_regions(kind: Kind, index: int) -> Regions:
    return Regions({label: mask.copy() for label, mask in _scene(kind, index).masks.items()})
