"""What an image of a data set holds, as one short text: equal texts mean equal pixels, labels and masks."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from caap_lab.models.images import load_image

if TYPE_CHECKING:
    from caap_lab.data.image_set import Sample


def digest_of(sample: "Sample", class_name: Callable[[int], str] | None = None) -> str:
    """Hash of a sample's pixels as loaded, its labels and its masks; its name and place on the disk do not count.

    Args:
        sample: Its files are read.
        class_name: Name of a class by its index, where the classes have names. The same number under another name is
            another class.

    Returns:
        32 hexadecimal digits, the same in every process and on every machine.

    Raises:
        InputError: the image or a mask cannot be read.
    """

    def told(label: int | None) -> str:
        name = "" if label is None or class_name is None else class_name(label)
        return f"{label} {name!r}"

    image = load_image(sample.image)
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, f"image {image.size}", image.tobytes())
    _add(digest, f"labels {[told(label) for label in (sample.label, *sample.other_labels)]}")
    if sample.read_regions is not None:
        regions = sample.regions
        for label in sorted(regions.masks, key=lambda label: (label is not None, label or 0)):
            _add_mask(digest, f"object {told(label)}", regions.masks[label])
        if regions.ignored is not None:
            _add_mask(digest, "ignored", regions.ignored)
    return digest.hexdigest()


def _add_mask(digest: Any, what: str, mask: np.ndarray) -> None:
    inside = np.asarray(mask) != 0
    _add(digest, f"{what} {inside.shape}", np.packbits(inside).tobytes())


def _add(digest: Any, what: str, content: bytes = b"") -> None:
    """Each piece with its length before it, so that no two lists of pieces look the same."""
    for piece in (what.encode(), content):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
