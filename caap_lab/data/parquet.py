"""Photos in parquet files, as on the Hugging Face hub: one row per photo, read on demand."""

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from caap_lab.data.folders import list_folder
from caap_lab.errors import InputError
from caap_lab.models.images import load_image

_BATCH = 4  # rows decoded at once: limits the memory to some megabytes
_PLACES = ("", "data")
_NUMBERED = re.compile(r"(?P<split>.*)-(?P<part>\d+)-of-(?P<total>\d+)(?P<hash>-[0-9a-f]+)?\.parquet")
_OTHER_SPLITS = ("train", "test")


class ParquetPhoto(NamedTuple):
    """A photo in a row of a parquet file."""

    file: Path
    group: int
    """Row group of the file."""
    row: int
    """Row in the group."""
    name: str
    """Name of the photo in the data set."""

    def __str__(self) -> str:
        """Name and file, for messages."""
        return f"{self.name} in {self.file}"

    def read(self) -> bytes:
        """The bytes of the image file in the row.

        Raises:
            InputError: the file cannot be read, or the row holds no image.
        """
        import pyarrow.parquet as pq

        row = self.row
        try:
            with pq.ParquetFile(self.file) as opened:
                for batch in opened.iter_batches(_BATCH, row_groups=[self.group], columns=["image"]):
                    if row < len(batch):
                        data: bytes | None = batch["image"][row]["bytes"].as_py()
                        break
                    row -= len(batch)
                else:
                    raise ValueError("there is no such row")
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are among them
            raise InputError(f"{self} cannot be read ({error}).") from error
        if not data:
            raise InputError(f"{self} holds no image file.")
        return data

    def open(self) -> Image.Image:
        """The image, not yet decoded.

        Raises:
            InputError: it is not an image.
        """
        data = self.read()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as `load_image` does
                return Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise InputError(f"{self} cannot be read as an image in a format that Pillow knows.") from None
        except Exception as error:  # each of Pillow's formats raises its own errors
            raise InputError(f"{self} cannot be read as an image: {error}") from error

    def load(self) -> Image.Image:
        """The image, as from `load_image`.

        Raises:
            InputError: it is not an image that `load_image` accepts.
        """
        image = self.open()
        try:
            return load_image(image)
        except InputError as error:
            raise InputError(f"{self}: {error}") from error


class Row(NamedTuple):
    """One row of a file."""

    file: Path
    group: int
    row: int
    """Row in the group."""
    label: Any
    """Value of the column "label"."""
    path: str | None
    """Original file name of the photo."""

    def photo(self, name: str) -> ParquetPhoto:
        """The row's photo.

        Args:
            name: Name of the photo in the data set.
        """
        return ParquetPhoto(self.file, self.group, self.row, name)


def find_parquet(path: Path) -> list[Path]:
    """The files of a validation set, here or in a folder "data", in order; empty if there are none.

    Files of other splits are ignored.

    Raises:
        InputError: some are missing, or they belong to more than one revision of the data set.
    """
    for place in _PLACES:
        folder = path / place
        names = _parquet_names(folder)
        files = [name for name in names if name.startswith("validation")]
        files = files or [name for name in names if not name.startswith(_OTHER_SPLITS)]
        if files:
            _check_one_revision(folder, files)
            return [folder / name for name in files]
    return []


def read_rows(files: Iterable[Path]) -> Iterator[Row]:
    """All rows with their labels; photos are not read.

    Raises:
        InputError: a file is not a parquet file or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first: tuple[Path, dict[str, Any]] | None = None
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                columns = {field.name: field.type for field in schema}
                first = first or (file, columns)
                if columns != first[1]:
                    raise _two_revisions(file.parent, first[0].name, file.name, "These have other columns. ")
                if not {"image", "label"} <= set(schema.names):
                    raise InputError(f"{file} has the columns {', '.join(schema.names)}; expected image and label.")
                kind = schema.field("image").type
                fields = [field.name for field in kind] if pa.types.is_struct(kind) else []
                if "bytes" not in fields:
                    raise InputError(f"{file} has images of type {kind}; expected a struct of bytes and path.")
                sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
                labels = opened.read(columns=["label"])["label"].to_pylist()
                paths = [None] * len(labels)
                if "path" in fields:
                    paths = opened.read(columns=["image.path"])["image"].combine_chunks().field("path").to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file} cannot be read as parquet ({error}).") from error
        places = [(group, row) for group, rows in enumerate(sizes) for row in range(rows)]
        for (group, row), label, name in zip(places, labels, paths, strict=True):
            yield Row(file, group, row, label, name)


def _parquet_names(folder: Path) -> list[str]:
    _, folders, files = list_folder(folder)
    for name in (*folders, *files):
        path = folder / name
        if not name.endswith(".parquet") or path.is_file():
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected a file.")
        what = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else "a pipe or a device"
        raise InputError(f"{path} is {what}.")
    return [name for name in files if name.endswith(".parquet")]


def _check_one_revision(folder: Path, names: list[str]) -> None:
    """Raise InputError for files of two revisions, whose rows would count twice, or for missing files.

    Older files on the hub have a hash in their names, which differs between files.
    """
    about = next((told for name in names if (told := _NUMBERED.fullmatch(name))), None)
    if about is None:
        return
    parts: dict[int, str] = {}
    for name in names:
        told = _NUMBERED.fullmatch(name)
        alike = told is not None and all(told[key] == about[key] for key in ("split", "total"))
        if told is None or not alike or bool(told["hash"]) != bool(about["hash"]):
            raise _two_revisions(folder, about.string, name)
        if parts.setdefault(int(told["part"]), name) != name:
            raise _two_revisions(folder, parts[int(told["part"])], name)
    total = int(about["total"])
    missing = sorted(set(range(total)) - set(parts))
    if missing:
        raise InputError(
            f"{folder} has {total - len(missing)} of {total} parquet files; number {missing[0]:05d} is the first that "
            "is missing. Complete the download."
        )


def _two_revisions(folder: Path, one: str, other: str, why: str = "") -> InputError:
    return InputError(
        f"{folder} has parquet files of more than one revision of the data set: {one} and {other}. {why}Keep the files "
        "of one revision."
    )
