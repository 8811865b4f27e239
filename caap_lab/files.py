"""Writing files so that a full disk or a killed process never harms what was there before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it takes `path`'s place in one step, on any error it is removed.

    The body may write a file or make a folder there. An existing folder at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid4().hex[:8]
    part, old = path.with_name(f".{path.name}.{mark}.part"), path.with_name(f".{path.name}.{mark}.old")
    try:
        yield part
        if part.is_file():
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        if part.is_dir() and path.exists():
            path.rename(old)
            part.rename(path)
        else:
            part.replace(path)
    except BaseException:
        _remove(part)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        if path.exists():
            _remove(old)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; any failure is an OSError that says where."""
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        raise OSError(f"writing {path.parent} failed: {error}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
