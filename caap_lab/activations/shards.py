"""The rows of a store: in memory, in files with checksums, or generated when they are read."""

import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caap_lab.digests.tensors import raw_bytes
from caap_lab.errors import InputError
from caap_lab.files import save_tensors

SHARDS = "shard-*.safetensors"
SHARD_BYTES = 2**30
"""Largest shard kept in memory while writing to disk."""
_CHECKSUMS = "checksums of "
"""In shards, the prefix of the activation's name for the checksums of its rows."""
_AGAIN = "Open the store again, or record the activations again."


class Rows(Protocol):
    """Rows that are generated when they are read."""

    @property
    def device(self) -> torch.device:
        """The device on which they are generated."""

    def read(self, hook: str, start: int, stop: int) -> Tensor:
        """Rows start to stop - 1 of one activation."""


@dataclass(frozen=True)
class Shard:
    """Rows start to stop - 1 (images) of tensors in memory, in a safetensors file, or generated when they are read."""

    source: dict[str, Tensor] | Path | Rows
    start: int
    stop: int
    checked: bool = False
    """True if the file holds a checksum of every row."""

    def read(self, hook: str) -> Tensor:
        """Rows of one activation; from a file, only these rows are read and checked against their checksums."""
        if isinstance(self.source, dict):
            return self.source[hook][self.start : self.stop]
        if not isinstance(self.source, Path):
            return self.source.read(hook, self.start, self.stop)
        try:
            with safe_open(self.source, framework="pt") as file:
                rows = file.get_slice(hook)[self.start : self.stop]
                expected = file.get_slice(_CHECKSUMS + hook)[self.start : self.stop] if self.checked else None
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.source} cannot be read ({error}): it was replaced or damaged. {_AGAIN}") from error
        if expected is not None and not torch.equal(expected, _checksums(rows)):
            raise InputError(f"{self.source} is damaged: its values have changed since they were written. {_AGAIN}")
        return rows


def bytes_per_image(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """Bytes of the activations per image."""
    return sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize


def check_disk(path: Path, nbytes: int) -> None:
    """Raise InputError if the disk does not have enough free space."""
    folder = next(p for p in [path.parent, *path.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise InputError(
            f"The store needs {nbytes / 2**20:,.1f} MiB, but {folder} has {free / 2**20:,.1f} MiB free. "
            "Record fewer names, layers or images, or dtype='float16'."
        )


def write_shard(folder: Path, tensors: dict[str, Tensor], recording: str) -> None:
    """Write the next shard of a store.

    `recording` is unique for every store written, so that an open store finds its own shards or none, never those of a
    store that replaced it.
    """
    number = len(list(folder.glob(SHARDS)))
    tensors = {**tensors, **{_CHECKSUMS + hook: _checksums(rows) for hook, rows in tensors.items()}}
    save_tensors(tensors, folder / f"shard-{recording}-{number:05d}.safetensors")


def _checksums(rows: Tensor) -> Tensor:
    """CRC-32 of each row's bytes."""
    content = raw_bytes(rows)
    size = len(content) // max(1, len(rows))
    checksums = [zlib.crc32(content[row * size : (row + 1) * size]) for row in range(len(rows))]
    return torch.tensor(checksums, dtype=torch.int64, device="cpu")
