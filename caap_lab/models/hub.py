"""Files from the Hugging Face cache, or from the hub if it can be reached."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from caap_lab.errors import InputError

PATIENCE = 4.0
"""Seconds to wait for the hub's first answer."""
_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def fetch_weights(model: str, hub_id: str, filename: str | None = None) -> Path:
    """Path of a repository's weights file: from the cache without using the network, otherwise downloaded.

    Args:
        model: The model's name, for messages.
        hub_id: Repository, followed by "@revision" if not the newest.
        filename: The file, if it does not have one of the usual names.

    Raises:
        InputError: the hub cannot be reached within a few seconds, or denies access to the file.
    """
    cached = cached_weights(hub_id, filename)
    if cached is not None:
        return cached
    repository, _, revision = hub_id.partition("@")
    names = _names(filename)
    way_out = (
        f"Give a local file with load_model({model!r}, checkpoint=...), or download {repository} once while "
        "there is a network: its files are then found in the Hugging Face cache (HF_HOME)."
    )
    path = _from_hub(repository, revision or None, names, way_out)
    if path is None:
        raise InputError(f"{repository} has none of the files {', '.join(names)}. {way_out}")
    return path


def cached_weights(hub_id: str, filename: str | None = None) -> Path | None:
    """Path of a repository's weights file in the Hugging Face cache, or None; arguments as for `fetch_weights`."""
    return _from_cache(hub_id, _names(filename))[0]


def find_file(hub_id: str, names: Sequence[str], *, download: bool = True) -> Path | None:
    """Path of the first of these files that a repository has, or None: from the cache without using the network.

    Args:
        hub_id: Repository, followed by "@revision" if not the newest.
        names: Files, in order of preference.
        download: False to look only in the cache.

    Raises:
        InputError: the hub cannot be reached within a few seconds, or denies access to the file.
    """
    cached, known = _from_cache(hub_id, names)
    if cached is not None or known or not download:
        return cached
    repository, _, revision = hub_id.partition("@")
    way_out = (
        f"Give a local folder with the same files, load_model('FOLDER'), or download {repository} once while there is "
        f"a network (`hf download {repository}`): its files are then found in the Hugging Face cache (HF_HOME)."
    )
    found = _from_hub(repository, revision or None, names, way_out)
    for name in names if found is None else ():  # leaves a marker in the cache, so that the hub is not asked again
        with contextlib.suppress(Exception):
            huggingface_hub.hf_hub_download(repository, name, revision=revision or None)
    return found


def _from_cache(hub_id: str, names: Sequence[str]) -> tuple[Path | None, bool]:
    """The first of these files that is in the cache, and whether the cache knows that the repository has none."""
    repository, _, revision = hub_id.partition("@")
    missing = 0
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached), False
        missing += cached is not None  # a marker that the hub has no such file
    return None, missing == len(names)


def _names(filename: str | None) -> tuple[str, ...]:
    return _FILES if filename is None else (str(Path(filename).with_suffix(".safetensors")), filename)


def _from_hub(repository: str, revision: str | None, names: Sequence[str], way_out: str) -> Path | None:
    """The first of these files that the repository has, downloaded; None if it has none."""
    name = _first_on_hub(repository, revision, names, way_out)
    if name is None:
        return None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # reported with its reason; the hub passes on errors of its HTTP library
        raise InputError(f"Downloading {name} of {repository} failed: {_first_line(error)} {way_out}") from error


def _first_on_hub(repository: str, revision: str | None, names: Sequence[str], way_out: str) -> str | None:
    for name in names:
        url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
        try:
            _with_patience(partial(huggingface_hub.get_hf_file_metadata, url, timeout=PATIENCE))
        except errors.EntryNotFoundError:
            continue
        except errors.RevisionNotFoundError as error:
            raise InputError(f"{repository} has no revision {revision!r} on the Hugging Face hub.") from error
        except errors.GatedRepoError as error:
            raise InputError(
                f"{repository} is open only to users who accepted its terms on the Hugging Face hub. {way_out}"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise InputError(
                f"The Hugging Face hub has no repository {repository}, or shows it only to logged-in users (`hf auth "
                f"login`). {way_out}"
            ) from error
        except errors.OfflineModeIsEnabled as error:
            raise InputError(
                f"{name} of {repository} is not in the cache, and HF_HUB_OFFLINE forbids downloading it. {way_out}"
            ) from error
        except Exception as error:  # likewise: without a network the error comes from the HTTP library
            raise InputError(
                f"The Hugging Face hub cannot be reached for {name} of {repository}: {_first_line(error)} {way_out}"
            ) from error
        return name
    return None


def _with_patience(ask: Callable[[], Any]) -> None:
    """Call `ask` in a thread, because looking up the hub's address may hang for longer than a request's timeout."""
    problems: list[Exception] = []

    def run() -> None:
        try:
            ask()
        except Exception as error:  # raised again below, in the thread that waits
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {PATIENCE:.0f} seconds")
    if problems:
        raise problems[0]


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
