"""Writing files so that a full disk or a killed process never harms what was there before."""

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
"""The disk is full, a file is larger than allowed, or the user's quota is used up."""
_LEFTOVER = r"[0-9a-f]{8}(?:-(?P<host>[0-9a-f]{8})-(?P<process>\d+))?"
"""What stands in a temporary name: a random mark, and who wrote it (older versions left that out)."""


def folder_problem(folder: Path) -> str:
    """Why files cannot be written into a folder, which need not be there yet; a sentence, empty if they can."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        return f"{place} is a file, and a folder should be there. Choose another place with out=... (--out)."
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} cannot be written. Choose another place with out=... (--out)."
    return ""


def check_folder(folder: Path) -> None:
    """Refuse a place into which nothing can be written, before the work whose results would go there.

    Raises:
        InputError: says why.
    """
    problem = folder_problem(folder)
    if problem:
        raise InputError(problem)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it takes `path`'s place in one step, on any error it is removed.

    The body may write a file or make a folder there. An existing folder at `path` is replaced: it steps aside first,
    and `recover` brings it back where a process was killed in between. What killed processes left beside `path` is
    removed.

    Raises:
        OSError: it could not be written; where the disk is full, the message names `path`.
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
    """Bring back what a killed process had moved aside from `path`, and remove what such processes left beside it.

    Temporary files of processes that are at work, or that ran on another machine, are left alone.
    """
    aside: list[Path] = []
    halves: list[Path] = []
    for found in path.parent.glob(".*"):
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.{_LEFTOVER}\.(?P<kind>part|old)", found.name)
        if match and not _may_be_at_work(match, found):
            (aside if match["kind"] == "old" else halves).append(found)
    with suppress(OSError):  # a folder that cannot be written to is left as it is
        if aside and not os.path.lexists(path):
            newest = max(aside, key=lambda old: old.stat().st_mtime)
            newest.rename(path)
            aside.remove(newest)
        for found in (*halves, *aside):
            _remove(found)


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Give a full disk's error, which names no file, a message that does."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or str(path) in str(error):
            raise
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}); what was there before is unchanged. Make room "
            "and try again",
        ) from error


def read_json(path: Path, form: Any, what: str) -> Any:
    """A JSON file's content, after looking that it has a form.

    Args:
        path: The file.
        form: See `has_form`.
        what: What messages say to do about a file that is damaged.

    Raises:
        InputError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is no JSON ({error}); {what}.") from None
    if not has_form(content, form):
        raise InputError(f"{path} is damaged: something in it is missing or of the wrong kind; {what}.")
    return content


def has_form(content: Any, form: Any) -> bool:
    """True if what a JSON file holds has the form that is expected.

    Args:
        content: Read from JSON.
        form: A type, several types, or True for anything; a list of one form for a list of any length; a dict of forms
            for a dict that has these keys, and a dict with the one key str for one with any keys. A whole number is
            also a float, and a truth value is neither.
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
    """Write a safetensors file; any failure is an OSError that says where."""
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number and int(number[1]) in _FULL:
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise OSError(f"writing {path.parent} failed: {error}") from error


def _may_be_at_work(match: "re.Match[str]", found: Path) -> bool:
    """True if the process that a temporary name tells of may still write there."""
    if match["process"] is None:
        return False
    number = int(match["process"])
    if match["host"] != _host() or number == os.getpid():
        return True
    try:  # a process that is a good deal younger than the file only got the same number
        return bool(psutil.Process(number).create_time() <= found.stat().st_mtime + 60)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.Error:
        return True


def _host() -> str:
    """This machine, in eight characters that fit into a file name."""
    return hex_digest(platform.node(), size=4)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
