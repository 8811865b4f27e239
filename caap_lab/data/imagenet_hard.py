"""ImageNet-Hard: photos from eleven data sets that ImageNet models get wrong (Taesiri et al., arXiv 2304.05538)."""

from pathlib import Path
from typing import Any

from caap_lab.data.folders import layout_error
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.data.parquet import find_parquet, read_rows
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

HOME = "huggingface.co/datasets/taesiri/imagenet-hard"


def open_imagenet_hard(path: Path, source: str) -> ImageSet:
    """The set ImageNet-Hard from its parquet files, in their order.

    Only labels are read on opening. Photos have several correct ImageNet-1k classes; the first is the label. A photo is
    named by its row, so all files must be present.

    Args:
        path: Folder of the parquet files, or with a folder "data" of them, as on the hub.
        source: The text that the user gave.

    Raises:
        InputError: there are no such files, some are missing, or they have other columns.
    """
    files = find_parquet(path)
    if not files:
        raise layout_error(path, "validation-00000-of-*.parquet, here or in data/", HOME)
    samples: list[Sample] = []
    for row in read_rows(files):
        name = f"imagenet-hard-{len(samples):05d}"
        samples.append(Sample(name, row.photo(name).load, *_labels(row.file, name, row.label)))
    return ImageSet("imagenet-hard", source, tuple(samples), ClassNames.imagenet1k())


def _labels(file: Path, name: str, classes: Any) -> tuple[int, None, tuple[int, ...]]:
    """Label, no regions and other labels, in the order of `Sample`."""
    classes = [classes] if isinstance(classes, int) else classes
    if not classes or not all(isinstance(index, int) and 0 <= index < 1000 for index in classes):
        raise InputError(f"{file} gives {name} the label {classes}, where classes 0 to 999 should be.")
    return classes[0], None, tuple(dict.fromkeys(classes[1:]))
