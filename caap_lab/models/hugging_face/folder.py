"""Folders with a config.json and weights, as saved by timm and transformers: local, or from the hub."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.bundled import BACKBONES
from caap_lab.models.hub import find_file

HUB = "hf-hub:"
"""Prefix of a repository's id, as in timm's names."""
CONFIG, ADAPTER = "config.json", "adapter_config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_INDEX = ".index.json"
_WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{_INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX}",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[^@]+)?", re.ASCII)
_OTHER_PREFIXES = ("hf_hub:", "local-dir:", "hf-hub/", "hf_hub/", "https://huggingface.co/", "hf.co/")


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder to read a model from; only config.json has been read."""

    name: str
    """The name as given, for messages."""
    path: Path
    settings: dict[str, Any]
    """The content of config.json."""
    weights: tuple[Path, ...]
    """One file, or several shards."""
    others: tuple[Path, ...]
    """Files with preprocessing settings, and the index of the shards."""

    @property
    def from_timm(self) -> bool:
        """True if config.json was written by timm, not by transformers."""
        return "architecture" in self.settings

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the model; their content identifies it."""
        return (self.path / CONFIG, *self.others, *self.weights)


@dataclass(frozen=True)
class AdapterFolder:
    """A folder with a PEFT adapter for a base model from elsewhere."""

    name: str
    path: Path
    settings: dict[str, Any]
    """The content of adapter_config.json."""
    weights: Path
    base: CheckpointFolder
    processors: tuple[Path, ...]
    """The adapter's own files with preprocessing settings."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the model."""
        return (self.path / ADAPTER, self.weights, *self.processors, *self.base.files)


def names_folder(name: str) -> bool:
    """True if a model's name is a repository's id or the path of a folder, not a name known to timm or the package.

    A name known to timm or the package takes precedence over a folder of the same name; write "./NAME" for the folder.
    """
    if name.startswith((HUB, *_OTHER_PREFIXES)) or "/" in name or os.sep in name or name.startswith(("~", ".")):
        return True
    return bool(name.strip()) and name not in BACKBONES and not timm.is_model(name) and _is_dir(Path(name))


def check_folder_name(name: str) -> None:
    """Raise InputError for a folder without a model or an invalid repository id, without using the network.

    Raises:
        InputError: the name is invalid; the message says what was found and what to write.
    """
    if name.startswith(HUB):
        _check_repository(name)
        return
    for prefix in _OTHER_PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            right = rest if prefix == "local-dir:" else f"{HUB}{rest}"
            raise InputError(f"Write {right!r} instead of {name!r}: only the path of a folder, or {HUB}OWNER/NAME.")
    path = Path(name).expanduser()
    if not _is_dir(path):
        raise InputError(_no_folder(name, path))
    if not (path / CONFIG).is_file() and not (path / ADAPTER).is_file():
        found = sorted(entry.name for entry in path.iterdir())
        raise InputError(
            f"The folder {name} has no {CONFIG}, which describes the model of its weights; found "
            f"{', '.join(found[:6]) or 'nothing'}{', ...' if len(found) > 6 else ''}. Save the model with its "
            "configuration (transformers' save_pretrained, timm.models.save_for_hf), or give the name of a timm "
            "model, and the weights as checkpoint=...."
        )


def open_folder(name: str) -> CheckpointFolder | AdapterFolder:
    """A model's folder; the files of a repository are downloaded into the Hugging Face cache first.

    Only files that are needed are downloaded, all of one commit.

    Args:
        name: "hf-hub:OWNER/NAME", followed by "@REVISION" if not the newest, or the path of a folder.

    Raises:
        InputError: there is no such folder or repository, or the hub cannot be reached.
        CheckpointError: config.json or an index cannot be read, or a file is missing.
    """
    check_folder_name(name)
    opened = _open(name, download=True)
    if opened is None:
        raise InputError(f"{name} has neither {CONFIG} nor {ADAPTER}, so it holds no model.")
    return opened


def is_here(name: str) -> bool:
    """True if a model's folder can be opened without the network.

    Raises:
        InputError: there is no such folder, or its files cannot be read.
    """
    check_folder_name(name)
    return _open(name, download=False) is not None


def _open(name: str, download: bool) -> CheckpointFolder | AdapterFolder | None:
    source: Path | str = name.removeprefix(HUB) if name.startswith(HUB) else Path(name).expanduser()
    first = _find(source, (CONFIG, ADAPTER), download)
    if first is None:
        return None
    if isinstance(source, str):
        source = f"{source.partition('@')[0]}@{first.parent.name}"  # the commit, so that all files match
    settings = _read_json(first)
    if first.name == ADAPTER:
        return _adapter(name, source, first, settings, download)
    found = _checkpoint(name, source, first, settings, download)
    return found or _adapter_beside(name, source, download)


def _checkpoint(
    name: str, source: Path | str, config: Path, settings: dict[str, Any], download: bool
) -> CheckpointFolder | None:
    found = _find(source, _WEIGHTS, download)
    if found is None:
        return None
    others: list[Path] = []
    weights: tuple[Path, ...] = (found,)
    if found.name.endswith(_INDEX):
        others.append(found)
        shards = _shards(source, found, download)
        if shards is None:
            return None
        weights = shards
    if "architecture" not in settings:  # timm's config.json contains the preprocessing
        others += _processors(source, config.parent, download)
    return CheckpointFolder(name, config.parent, settings, weights, tuple(others))


def _adapter_beside(name: str, source: Path | str, download: bool) -> AdapterFolder | None:
    """An adapter whose folder also contains the base model's config.json."""
    config = _find(source, (ADAPTER,), download)
    if config is not None:
        return _adapter(name, source, config, _read_json(config), download)
    if download or isinstance(source, Path):
        raise CheckpointError(f"{name} has a {CONFIG} but no weights; looked for {', '.join(_WEIGHTS)}.")
    return None


def _adapter(
    name: str, source: Path | str, config: Path, settings: dict[str, Any], download: bool
) -> AdapterFolder | None:
    weights = _find(source, _ADAPTER_WEIGHTS, download)
    if weights is None:
        if isinstance(source, str) and not download:
            return None
        raise CheckpointError(f"{name} has an {ADAPTER} but no weights; looked for {', '.join(_ADAPTER_WEIGHTS)}.")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{ADAPTER} of {name} does not name its base model (base_model_name_or_path). Load it with PEFT onto the "
            "base model and pass the result to cl.wrap."
        )
    revision = settings.get("revision")  # of the base model
    hub_name = f"{HUB}{base}@{revision}" if revision else f"{HUB}{base}"
    base_name = base if _is_dir(Path(base)) else hub_name
    check_folder_name(base_name)
    opened = _open(base_name, download)
    if isinstance(opened, AdapterFolder):
        raise CheckpointError(
            f"The base model {base} of the adapter {name} is itself an adapter; merge that one first."
        )
    if opened is None:
        return None
    return AdapterFolder(
        name, config.parent, settings, weights, opened, tuple(_processors(source, config.parent, download))
    )


def _processors(source: Path | str, folder: Path, download: bool) -> list[Path]:
    """Files with preprocessing settings, in the same folder as the rest."""
    try:
        first = _find(source, PROCESSORS, download)
    except InputError as error:
        raise InputError(f"{error} If the cache holds the complete repository, give its folder: {folder}.") from error
    if first is None:
        return []
    return [path for name in PROCESSORS if (path := first.parent / name).is_file()]


def _find(source: Path | str, names: tuple[str, ...], download: bool) -> Path | None:
    """The first of these files that a folder or repository has."""
    if isinstance(source, str):
        return find_file(source, names, download=download)
    return next((source / name for name in names if (source / name).is_file()), None)


def _shards(source: Path | str, index: Path, download: bool) -> tuple[Path, ...] | None:
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_plain(name) for name in names.values()):
        raise CheckpointError(f"{index} does not say which file holds which weight (weight_map).")
    shards = []
    for name in sorted(set(names.values())):
        path = _find(source, (name,), download)
        if path is None and isinstance(source, str) and not download:
            return None
        if path is None:
            raise CheckpointError(f"{index} names {name}, which does not exist.")
        shards.append(path)
    return tuple(shards)


def _plain(name: Any) -> bool:
    """True for a file in the folder of the index: a name that contains a folder could lead anywhere."""
    return isinstance(name, str) and Path(name).name == name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not settings by name.")
    return content


def _check_repository(name: str) -> None:
    repository = name.removeprefix(HUB)
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(
            f"{name!r} is not a repository of the Hugging Face hub; write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION."
        )


def _no_folder(name: str, path: Path) -> str:
    if path.is_file():
        return (
            f"{name} is a file. Give its folder, if that has a {CONFIG}, or the name of the timm model that the "
            "weights belong to, and the file with checkpoint=...."
        )
    text = f"There is no folder {name}."
    if _REPOSITORY.fullmatch(name) and not name.startswith("."):
        text += f" If you mean the repository on the Hugging Face hub, write {HUB}{name}."
    return text


def _is_dir(path: Path) -> bool:
    try:
        return path.expanduser().is_dir()
    except (OSError, RuntimeError):  # a name that is too long, or a home folder that does not exist
        return False
