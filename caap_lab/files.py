"""Safe writing of files: a full disk or a killed process never damages existing ones."""

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""The disk is full, a file is larger than allowed, or the user's quota is exceeded."""
_LEFTOVER = r"[0-9a-f]{8}(?:-(?P<host>[0-9a-f]{8})-(?P<process>\d+))?"
"""The parts of a temporary name: a random mark, and its writer (omitted by older versions)."""


def folder_problem(folder: Path) -> str:
    """A sentence that says why files cannot be written into a folder, which need not exist yet; empty if they can."""
    above = (folder.absolute(), *folder.absolute().parents)
    place = next(path for path in above if path.exists() or path.is_symlink())
    if not place.exists():
        return f"{place} is a link to nothing. Choose another place with out=... (--out)."
    if not place.is_dir():
        return f"{place} is a file; expected a folder. Choose another place with out=... (--out)."
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} is not writable. Choose another place with out=... (--out)."
    return ""


def check_folder(folder: Path) -> None:
    """Raise InputError for a folder that is not writable, before the work whose results would go there.

    Raises:
        InputError: it is not; the message says why.
    """
    problem = folder_problem(folder)
    if problem:
        raise InputError(problem)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, which replaces `path` atomically on success and is removed on any error.

    The body may write a file or create a folder there. An existing folder at `path` is replaced: it is moved aside
    first, and `recover` restores it if the process was killed in between. Leftovers of killed processes next to `path`
    are removed.

    Raises:
        OSError: it could not be written; if the disk is full, the message names `path`.
    """
    with named_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        mark = f"{uuid4().hex[:8]}-{_host()}-{os.getpid()}"
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


def recover(path: Path) -> None:
    """Restore what a killed process had moved aside from `path`, and remove leftovers of such processes next to it.

    Temporary files of running processes, or of other machines, are not touched.
    """
    aside: list[Path] = []
    halves: list[Path] = []
    for found in path.parent.glob(".*"):
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.{_LEFTOVER}\.(?P<kind>part|old)", found.name)
        if match and not _may_be_at_work(match, found):
            (aside if match["kind"] == "old" else halves).append(found)
    with suppress(OSError):  # a folder that is not writable is left unchanged
        if aside and not os.path.lexists(path):
            newest = max(aside, key=lambda old: old.stat().st_mtime)
            newest.rename(path)
            aside.remove(newest)
        for found in (*halves, *aside):
            _remove(found)


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Context that adds the file's name to the error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or str(path) in str(error):
            raise
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}); an existing file is unchanged. Free some space "
            "and try again",
        ) from error


def read_json(path: Path, form: Any, what: str) -> Any:
    """The content of a JSON file, after a check of its form.

    Args:
        path: The file.
        form: See `has_form`.
        what: What to do about a damaged file, for messages.

    Raises:
        InputError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error}); {what}.") from None
    if not has_form(content, form):
        raise InputError(f"{path} is damaged: something in it is missing or of the wrong type; {what}.")
    return content


def has_form(content: Any, form: Any) -> bool:
    """True if the content of a JSON file has the expected form.

    Args:
        content: The content.
        form: A type, several types, or True for anything; a list of one form for a list of any length; a dict of forms
            for a dict with these keys, and a dict with the single key str for one with any keys. An integer is also a
            float; a bool is neither.
    """
    if form is True:
        return True
    if isinstance(form, tuple):
        return any(has_form(content, one) for one in form)
    if isinstance(form, list):
        return isinstance(content, list) and all(has_form(one, form[0]) for one in content)
    if isinstance(form, dict):
        if not isinstance(content, dict):
            return False
        if list(form) == [str]:
            return all(has_form(one, form[str]) for one in content.values())
        return all(key in content and has_form(content[key], one) for key, one in form.items())
    if form is None:
        return content is None
    if form in (int, float):
        return isinstance(content, (int, form)) and not isinstance(content, bool)
    return isinstance(content, form)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; any failure is an OSError that names the folder."""
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number and int(number[1]) in _FULL:
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise OSError(f"writing {path.parent} failed: {error}") from error


def _may_be_at_work(match: "re.Match[str]", found: Path) -> bool:
    """True if the process in a temporary name may still be writing there."""
    if match["process"] is None:
        return False
    number = int(match["process"])
    if match["host"] != _host() or number == os.getpid():
        return True
    try:  # a process that is much younger than the file has merely got the same number
        return bool(psutil.Process(number).create_time() <= found.stat().st_mtime + 60)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.Error:
        return True


def _host() -> str:
    """An identifier of this machine: eight characters for file names."""
    return hex_digest(platform.node(), size=4)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
