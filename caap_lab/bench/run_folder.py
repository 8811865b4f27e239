"""A run's folder: append-only Parquet parts, written in one step each, read whatever happened to the writer.

plan.json       what is to be computed
parts/*.parquet finished trials; copying another run's parts here merges the two
damaged/        parts that could not be read
lock, owner     held while a process writes here, and which one that is

A part's name ends with a hash of its bytes, so that damage anywhere in it is noticed. Parts under other names (of older
versions, or renamed) are read as well; Parquet's own page checksums guard their values where they were written.
"""

import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from caap_lab.errors import InputError
from caap_lab.files import atomic_path, named_when_full

if TYPE_CHECKING:
    import pandas as pd

_CURVE = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("data", pa.string()),
        ("image", pa.string()),
        ("target_rule", pa.string()),
        ("target", pa.int64()),
        ("target_name", pa.string()),
        ("label", pa.int64()),
        ("grid", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("insertion", pa.float64()),
        ("deletion", pa.float64()),
        ("insdel", pa.float64()),
        ("aupr1", pa.float64()),
        ("aupr0", pa.float64()),
        ("pooled_ap", pa.float64()),
        ("pointing", pa.float64()),
        ("pointing_expected", pa.float64()),
        ("mass_inside", pa.float64()),
        ("prevalence", pa.float64()),
        ("mask", pa.string()),
        ("shares", _CURVE),
        ("insertion_curve", _CURVE),
        ("deletion_curve", _CURVE),
        ("protocol", pa.string()),
        ("settings", pa.string()),
        ("fingerprint", pa.string()),
        ("versions", pa.string()),
        ("machine", pa.string()),
        ("map_seconds", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
_JSON = ("protocol", "settings", "versions")
_FEW = 64  # parts of one trial that are put together into one


class RunFolder:
    """A run's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def plan_path(self) -> Path:
        """Where the plan is."""
        return self.folder / "plan.json"

    @property
    def parts(self) -> Path:
        """Where finished trials are."""
        return self.folder / "parts"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing here; a killed process lets go at once.

        Raises:
            InputError: another process is at work here, or the folder's place is taken by a file.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(
                f"{self.folder} cannot be a run's folder: it, its parts or something above it is a file. Choose "
                "another place."
            ) from None
        lock = FileLock(self.folder / "lock", timeout=0)
        owner = self.folder / "owner"  # a file of its own, as Windows lets nobody read a locked one
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder} is in use by {_text(owner) or 'another process'}; wait for it, or use another folder "
                "and copy its parts here later."
            ) from None
        try:
            with named_when_full(owner):
                owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            yield
        finally:
            with suppress(OSError):
                owner.unlink()
            lock.release()

    def clean(self) -> "pd.DataFrame":
        """Remove what a killed process left half written, and set damaged parts aside; the caller holds the lock.

        Returns:
            Finished trials, as `rows` gives them.
        """
        for folder in (self.folder, self.parts):
            for path in folder.glob(".*.part"):
                path.unlink(missing_ok=True)
        rows, damaged = self.contents()
        for path in self.set_aside(damaged):
            tqdm.write(f"{path.name} could not be read and is now in {path.parent}; its trials run again.", sys.stderr)
        return rows

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write finished trials as a new part, in one step.

        Raises:
            OSError: it could not be written, for example because the disk is full; earlier parts stay as they are.
        """
        columns = [{**row, **{key: json.dumps(row[key]) for key in _JSON if row.get(key) is not None}} for row in rows]
        stem = f"{time.time_ns():020d}-{platform.node()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._write(pa.Table.from_pylist(columns, schema=SCHEMA), stem)

    def read(self) -> tuple[pa.Table, list[Path]]:
        """All finished trials, in the order of their parts' names, and parts that cannot be read."""
        tables, damaged = [], []
        for path in sorted(self.parts.glob("*.parquet")):
            try:
                tables.append(_table(path))
            except FileNotFoundError:
                if not path.is_symlink():  # put together with others by the process at work, which comes again below
                    return self.read()
                damaged.append(path)
            except (pa.ArrowException, OSError, ValueError):
                damaged.append(path)
        return (pa.concat_tables(tables) if tables else SCHEMA.empty_table()), damaged

    def set_aside(self, damaged: Iterable[Path]) -> list[Path]:
        """Move parts that cannot be read into damaged/; the caller holds the lock."""
        moved = []
        for path in damaged:
            target = self.folder / "damaged" / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            moved.append(target)
        return moved

    def compact(self) -> None:
        """Replace many small parts by one; the caller holds the lock.

        The new part is there before the old ones go, so that being killed in between leaves trials twice, which
        reading undoes.
        """
        small = []
        for path in sorted(self.parts.glob("*.parquet")):
            with suppress(pa.ArrowException, OSError, ValueError):  # damaged meanwhile: the next start sets it aside
                if pq.read_metadata(path).num_rows == 1:
                    small.append((path, _table(path)))
        if len(small) < _FEW:
            return
        stem = _DIGEST.sub("", small[0][0].stem)
        self._write(pa.concat_tables([table for _, table in small]), f"{stem}-{len(small)}")
        for path, _ in small:
            path.unlink()

    def rows(self) -> "pd.DataFrame":
        """Finished trials, each once: one that was computed before one that failed, else the one written first."""
        return self.contents()[0]

    def contents(self) -> "tuple[pd.DataFrame, list[Path]]":
        """Finished trials as `rows` gives them, and parts that cannot be read."""
        table, damaged = self.read()
        frame = table.to_pandas()
        frame["failed"] = frame["error"].notna()
        return frame.sort_values("failed", kind="stable").drop_duplicates("key").drop(columns="failed"), damaged

    def _write(self, table: pa.Table, stem: str) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_page_checksum=True)
        content = sink.getvalue().to_pybytes()
        path = self.parts / f"{stem}-b2{_digest(content)}.parquet"
        try:
            with atomic_path(path) as part:
                part.write_bytes(content)
        except OSError as error:
            reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise OSError(
                f"{path.name} could not be written ({reason.strerror or reason}). What was finished before is safe in "
                f"{self.parts}; make room and run the same command again to go on."
            ) from error


_DIGEST = re.compile(r"-b2([0-9a-f]{32})$")
"""The hash at the end of a part's name."""


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _table(path: Path) -> pa.Table:
    """A part's rows.

    Raises:
        ValueError: the part is not what was written under its name; others where it is no Parquet file at all.
    """
    content = path.read_bytes()
    told = _DIGEST.search(path.stem)
    if told and told[1] != _digest(content):
        raise ValueError(f"{path} is damaged.")
    return pq.read_table(pa.BufferReader(content), schema=SCHEMA, page_checksum_verification=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
