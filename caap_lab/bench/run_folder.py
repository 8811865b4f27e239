"""A run's folder: append-only Parquet parts, written atomically, readable in whatever state the writer stopped.

plan.json       the trials to compute
parts/*.parquet finished trials; copying another run's parts here merges the two
damaged/        parts that could not be read
lock, owner     held while a process writes here, and the name of that process

A part's name ends with a hash of its bytes, so that any damage is noticed. Parts with other names (of older versions,
or renamed) are read as well; Parquet's own page checksums protect their values if they were written.
"""

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, folder_problem, named_when_full
from caap_lab.metrics.catalogue import BUILT_IN

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
"""One trial: its names, its map and its metrics, by column."""
_NUMBER, _NUMBERS = pa.float64(), pa.list_(pa.float64())
_BUILT_IN = [
    *((column.name, _NUMBER) for metric in BUILT_IN for column in metric.columns),
    *((name, _NUMBERS if kind == "numbers" else _NUMBER) for m in BUILT_IN for name, kind in m.details.items()),
]
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
        ("target_object", pa.string()),
        ("label", pa.int64()),
        ("grid", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        *_BUILT_IN,
        ("mask", pa.string()),
        ("protocol", pa.string()),
        ("settings", pa.string()),
        ("fingerprint", pa.string()),
        ("versions", pa.string()),
        ("machine", pa.string()),
        ("map_key", pa.string()),
        ("map_complete", pa.bool_()),
        ("map_score", pa.string()),
        ("map_sign", pa.string()),
        ("map_seconds", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
"""Columns of every part; `target` is the class in favour, and `target_object` the complete target if it is more than a
class. `map_key` is a hash of everything that determines the map, and `map_complete` is false if the map had more than
its scores. Columns of registered metrics, one number each, follow in the parts that have them."""
_JSON = ("target_object", "protocol", "settings", "versions")
_FINISHED = pa.schema([("key", pa.string()), ("error", pa.string())])
_FEW = 64  # number of one-trial parts that are merged


class RunFolder:
    """A run's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def plan_path(self) -> Path:
        """Path of the plan."""
        return self.folder / "plan.json"

    @property
    def parts(self) -> Path:
        """Folder of finished trials."""
        return self.folder / "parts"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Context that keeps every other process from writing here; the lock of a killed process is released at once.

        Raises:
            InputError: another process uses the folder, or there is a file of its name.
            OSError: the folder cannot be written.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{self.folder} cannot be a run's folder: {folder_problem(self.parts)}") from None
        lock = FileLock(self.folder / "lock", timeout=0)
        owner = self.folder / "owner"  # a separate file, because Windows does not allow reading a locked one
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder} is in use by {_text(owner) or 'another process'}; wait for it, or use another folder "
                "and copy its parts here later."
            ) from None
        except OSError as error:
            raise OSError(
                f"{self.folder} cannot be written ({error.strerror or error}). To read finished results, use "
                "cl.benchmark(..., compute=False)."
            ) from error
        try:
            with named_when_full(owner):
                owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            yield
        finally:
            with suppress(OSError):
                owner.unlink()
            lock.release()

    def clean(self) -> "pd.DataFrame":
        """Remove incomplete files of a killed process, and move damaged parts away; the caller holds the lock.

        Returns:
            Finished trials, as `rows` returns them.
        """
        for folder in (self.folder, self.parts):
            for path in folder.glob(".*.part"):
                path.unlink(missing_ok=True)
        rows, damaged = self.contents()
        for path in self.set_aside(damaged):
            tqdm.write(f"{path.name} could not be read and is now in {path.parent}; its trials run again.", sys.stderr)
        return rows

    def append(self, rows: Iterable[Row]) -> None:
        """Write finished trials as a new part, atomically; columns that are not in `SCHEMA` hold numbers.

        Raises:
            OSError: it could not be written, for example because the disk is full; earlier parts are unchanged.
        """
        rows = list(rows)
        columns = [{**row, **{key: json.dumps(row[key]) for key in _JSON if row.get(key) is not None}} for row in rows]
        stem = f"{time.time_ns():020d}-{platform.node()}-{os.getpid()}-{uuid4().hex[:6]}"
        names = dict.fromkeys(name for row in rows for name in row)
        own = [pa.field(name, _NUMBER) for name in names if name not in SCHEMA.names]
        self._write(pa.Table.from_pylist(columns, schema=pa.schema([*SCHEMA, *own])), stem)

    def read(self) -> tuple[pa.Table, list[Path]]:
        """All finished trials, in the order of their parts' names, and damaged parts.

        Raises:
            OSError: a part cannot be opened, for example because too many files are open; it is not damaged.
        """
        tables, damaged = [], []
        for path in sorted(self.parts.glob("*.parquet")):
            content = _content(path)
            if content is None and not (path.is_symlink() or path.is_dir()):
                return self.read()  # compacted by the writing process: its rows are in a later part
            try:
                tables.append(_table(path, content or b""))
            except _DAMAGED:
                damaged.append(path)
        return _joined(tables), damaged

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

        The new part is written before the old ones are removed, so that a process killed in between leaves duplicate
        trials, which reading removes.
        """
        single, small = [], []
        for path in sorted(self.parts.glob("*.parquet")):
            with suppress(*_DAMAGED):  # damaged meanwhile: the next start moves it away
                if pq.read_metadata(path).num_rows == 1:
                    single.append(path)
        for path in single if len(single) >= _FEW else ():
            with suppress(*_DAMAGED):
                small.append((path, _table(path, path.read_bytes())))
        if len(small) < _FEW:
            return
        stem = _DIGEST.sub("", small[0][0].stem)
        self._write(_joined([table for _, table in small]), f"{stem}-{len(small)}")
        for path, _ in small:
            path.unlink()

    def rows(self) -> "pd.DataFrame":
        """Finished trials without duplicates: a computed one before a failed one, otherwise the one written first."""
        return self.contents()[0]

    def contents(self) -> "tuple[pd.DataFrame, list[Path]]":
        """Finished trials as `rows` returns them, and damaged parts."""
        table, damaged = self.read()
        frame = table.to_pandas()
        frame["failed"] = frame["error"].notna()
        return frame.sort_values("failed", kind="stable").drop_duplicates("key").drop(columns="failed"), damaged

    def finished(self, retry_failed: bool = False) -> set[str]:
        """Keys of finished trials, read without their maps; with `retry_failed` only of those that did not fail."""
        keys: set[str] = set()
        for path in self.parts.glob("*.parquet"):
            content = _content(path) or b""
            with suppress(*_DAMAGED):  # damaged ones are reported when the run begins
                table = pq.read_table(pa.BufferReader(content), schema=_FINISHED)
                errors = table["error"].to_pylist()
                keys |= {k for k, e in zip(table["key"].to_pylist(), errors, strict=True) if not (retry_failed and e)}
        return keys

    def take_over(self, other: "RunFolder") -> None:
        """Copy finished trials that are missing here from another run's folder, if there is such a folder.

        Raises:
            InputError: another process uses this folder.
        """
        if not other.parts.is_dir() or not other.finished() - self.finished():
            return
        with self.locked():
            theirs, missing = other.read()[0], other.finished() - self.finished()
            new = theirs.filter(pa.array([key in missing for key in theirs["key"].to_pylist()], pa.bool_()))
            if len(new):
                self._write(new, f"{time.time_ns():020d}-{other.folder.name}")

    def _write(self, table: pa.Table, stem: str) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_page_checksum=True)
        content = sink.getvalue().to_pybytes()
        path = self.parts / f"{stem}-b2{hex_digest(content, size=16)}.parquet"
        try:
            with atomic_path(path) as part:
                part.write_bytes(content)
        except OSError as error:
            reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise OSError(
                f"{path.name} could not be written ({reason.strerror or reason}). What was finished before is safe in "
                f"{self.parts}; make room and run the same command again to continue."
            ) from error


_DIGEST = re.compile(r"-b2([0-9a-f]{32})$")
"""The hash at the end of a part's name."""
_DAMAGED = (pa.ArrowException, OSError, ValueError)
"""What pyarrow and `_table` raise for damaged content."""


def _content(path: Path) -> bytes | None:
    """A part's bytes; None if there is no file.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        return None if path.is_dir() else path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"{path} cannot be opened ({error.strerror or error}) and may be intact; nothing was changed. Try again, "
            "or move it elsewhere to run its trials again."
        ) from error


def _table(path: Path, content: bytes) -> pa.Table:
    """The rows of a part with some bytes.

    Raises:
        ValueError: the part is not what was written under its name; other errors if it is not a Parquet file at all.
    """
    named = _DIGEST.search(path.stem)
    if named and named[1] != hex_digest(content, size=16):
        raise ValueError(f"{path} is damaged.")
    written = pq.read_schema(pa.BufferReader(content))
    own = [field for field in written if field.name not in SCHEMA.names and field.type == _NUMBER]
    schema = pa.schema([*SCHEMA, *own])
    return pq.read_table(pa.BufferReader(content), schema=schema, page_checksum_verification=True)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows; columns that a part lacks have missing values."""
    return pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
