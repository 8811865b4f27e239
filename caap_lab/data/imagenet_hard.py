"""ImageNet-Hard: photos from eleven data sets that ImageNet models get wrong (Taesiri et al., arXiv 2304.05538)."""

import io
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from caap_lab.data.folders import layout_error, list_folder
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.images import load_image

HOME = "huggingface.co/datasets/taesiri/imagenet-hard"
_BATCH = 4  # rows decoded at once: bounds the memory to some megabytes


def open_imagenet_hard(path: Path, source: str) -> ImageSet:
    """ImageNet-Hard from its parquet files, in their order.

    Only labels are read on opening. Photos have several right ImageNet-1k classes; the first is the label.

    Args:
        path: Folder of the parquet files, or with a folder "data" of them, as the hub has it.
        source: What the user asked for.

    Raises:
        InputError: there are no such files, some of the set are missing, or they have other columns.
    """
    import pyarrow.parquet as pq

    folder = next((f for f in (path, path / "data") if _parquet_files(f)), None)
    if folder is None:
        raise layout_error(path, "validation-00000-of-*.parquet, here or in data/", HOME)
    files = [folder / name for name in _parquet_files(folder)]
    _check_complete(files)
    samples: list[Sample] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                columns = opened.schema_arrow.names
                if not {"image", "label"} <= set(columns):
                    raise InputError(f"{file} has the columns {', '.join(columns)}; image and label are needed.")
                sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
                labels = opened.read(columns=["label"])["label"].to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file} cannot be read as parquet ({error}).") from error
        places = [(group, row) for group, rows in enumerate(sizes) for row in range(rows)]
        for (group, row), classes in zip(places, labels, strict=True):
            name = f"imagenet-hard-{len(samples):05d}"
            read_image = partial(_read_image, file, group, row, name)
            samples.append(Sample(name, read_image, *_labels(file, name, classes)))
    return ImageSet("imagenet-hard", source, tuple(samples), ClassNames.imagenet1k())


def _parquet_files(folder: Path) -> list[str]:
    _, folders, files = list_folder(folder)
    for name in (*folders, *files):
        path = folder / name
        if not name.endswith(".parquet") or path.is_file():
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder, and a file should be there.")
        what = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else "a pipe or a device"
        raise InputError(f"{path} is {what}.")
    return [name for name in files if name.endswith(".parquet")]


def _check_complete(files: list[Path]) -> None:
    """Samples are named by their row, so a missing file would shift the names of all that follow."""
    said = re.search(r"-of-(\d+)", files[0].name)
    if said and len(files) != int(said[1]):
        raise InputError(f"{files[0].parent} has {len(files)} of {int(said[1])} parquet files.")


def _labels(file: Path, name: str, classes: Any) -> tuple[int, None, tuple[int, ...]]:
    """Label, no regions and other labels, in the order of `Sample`."""
    classes = [classes] if isinstance(classes, int) else classes
    if not classes or not all(isinstance(index, int) and 0 <= index < 1000 for index in classes):
        raise InputError(f"{file} gives {name} the label {classes}, where classes 0 to 999 should be.")
    return classes[0], None, tuple(dict.fromkeys(classes[1:]))


def _read_image(file: Path, group: int, row: int, name: str) -> Image.Image:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH, row_groups=[group], columns=["image"]):
                if row < len(batch):
                    data = batch["image"][row]["bytes"].as_py()
                    break
                row -= len(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as `load_image` does
            return load_image(Image.open(io.BytesIO(data)))
    except Exception as error:  # pyarrow and each of Pillow's formats have errors of their own
        raise InputError(f"{name} in {file} cannot be read as an image: {error}") from error
