"""A hash of an image of a data set: equal hashes mean equal pixels, labels and masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image

from caap_lab.digests.hashing import pieces_digest

Mask = Bool[np.ndarray, "height width"]


def content_digest(
    image: Image.Image,
    labels: Sequence[int | None],
    masks: Mapping[int | None, Mask],
    ignored: Mask | None,
    class_name: Callable[[int], str] | None,
) -> str:
    """Hash of an image's pixels, its labels and its masks.

    Args:
        image: The loaded image.
        labels: The label, and further correct ones.
        masks: Pixels of the objects by class index, or None for objects without a class.
        ignored: Pixels that the annotation leaves undecided; None if there are none.
        class_name: Name of a class by its index, if the classes have names. The same index with another name is another
            class.

    Returns:
        32 hexadecimal digits, the same in every process and on every machine.
    """

    def named(label: int | None) -> str:
        name = "" if label is None or class_name is None else class_name(label)
        return f"{label} {name!r}"

    def pieces() -> Iterator[str | bytes]:
        yield from (f"image {image.size}", image.tobytes())
        yield from (f"labels {[named(label) for label in labels]}", b"")
        for label in sorted(masks, key=lambda label: (label is not None, label or 0)):
            yield from _mask_pieces(f"object {named(label)}", masks[label])
        if ignored is not None:
            yield from _mask_pieces("ignored", ignored)

    return pieces_digest(pieces(), size=16)


def _mask_pieces(what: str, mask: Mask) -> tuple[str, bytes]:
    inside = np.asarray(mask) != 0
    return f"{what} {inside.shape}", np.packbits(inside).tobytes()
