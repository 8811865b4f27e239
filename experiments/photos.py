"""Functions shared by experiments on the user's photos."""

from pathlib import Path

from caap_lab import AttributionMap
from caap_lab.data.image_set import ImageSet

ENDINGS = (".jpg", ".jpeg", ".png")


def every_nth(folder: Path, count: int) -> list[Path]:
    """Photos spread over a folder, by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    return found[:: max(1, len(found) // count)][:count]


HELD_OUT = 64
"""Number of photos of a data set on which no setting is chosen."""


def held_out(images: ImageSet, count: int = HELD_OUT) -> ImageSet:
    """The first of the photos held out for testing: the last 64 of a draw of all with seed 0."""
    return images.sample(len(images), seed=0)[-HELD_OUT:][:count]


def one(found: AttributionMap | list[AttributionMap]) -> AttributionMap:
    """The map of a call with one image."""
    assert isinstance(found, AttributionMap)
    return found
