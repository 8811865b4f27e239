"""Folders with a config.json and weights, as timm and transformers save them: of this machine, or from the hub."""

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
"""In front of a repository's id, as in timm's own names."""
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
    """A folder that a model is read from; nothing but config.json has been read."""

    name: str
    """As it was given, for messages."""
    path: Path
    settings: dict[str, Any]
    """What config.json holds."""
    weights: tuple[Path, ...]
    """One file, or the shards of several."""
    others: tuple[Path, ...]
    """Files that say how photos are preprocessed, and the index of the shards."""

    @property
    def from_timm(self) -> bool:
        """True if timm's own names stand in config.json, not those of transformers."""
        return "architecture" in self.settings

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the model comes from; their content is its identity."""
        return (self.path / CONFIG, *self.others, *self.weights)


@dataclass(frozen=True)
class AdapterFolder:
    """A folder with what PEFT trained, which goes on top of a base model from elsewhere."""

    name: str
    path: Path
    settings: dict[str, Any]
    """What adapter_config.json holds."""
    weights: Path
    base: CheckpointFolder
    processors: tuple[Path, ...]
    """Files of its own that say how photos are preprocessed."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the model comes from."""
        return (self.path / ADAPTER, self.weights, *self.processors, *self.base.files)


def names_folder(name: str) -> bool:
    """True if a model's name is a repository's id or the path of a folder, not a name that timm or the package knows.

    A name that timm or the package has is theirs, also where a folder is called the same; "./NAME" is the folder then.
    """
    if name.startswith((HUB, *_OTHER_PREFIXES)) or "/" in name or os.sep in name or name.startswith(("~", ".")):
        return True
    return bool(name.strip()) and name not in BACKBONES and not timm.is_model(name) and _is_dir(Path(name))


def check_folder_name(name: str) -> None:
    """Refuse a folder without a model, or an id that no repository can have; the network is not asked.

    Raises:
        InputError: says what was found and what to write.
    """
    if name.startswith(HUB):
        _check_repository(name)
        return
    for prefix in _OTHER_PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            right = rest if prefix == "local-dir:" else f"{HUB}{rest}"
            raise InputError(f"{name!r} is written {right!r} here: a folder's path alone, or {HUB}OWNER/NAME.")
    path = Path(name).expanduser()
    if not _is_dir(path):
        raise InputError(_no_folder(name, path))
    if not (path / CONFIG).is_file() and not (path / ADAPTER).is_file():
        found = sorted(entry.name for entry in path.iterdir())
        raise InputError(
            f"The folder {name} has no {CONFIG}, which says what its weights belong to; found "
            f"{', '.join(found[:6]) or 'nothing'}{', ...' if len(found) > 6 else ''}. Save the model with its "
            "configuration (save_pretrained of transformers, timm.models.save_for_hf), or give the name of a timm "
            "model, and the weights with checkpoint=...."
        )


def open_folder(name: str) -> CheckpointFolder | AdapterFolder:
    """A model's folder, with the files of a repository brought into the Hugging Face cache first.

    Only what is read comes from the hub, all of one commit.

    Args:
        name: "hf-hub:OWNER/NAME", with "@REVISION" behind it if not the newest, or the path of a folder.

    Raises:
        InputError: there is no such folder or repository, or the hub cannot be reached.
        CheckpointError: config.json or an index cannot be read, or a file is missing.
    """
    check_folder_name(name)
    opened = _open(name, download=True)
    if opened is None:
        raise InputError(f"{name} has neither {CONFIG} nor {ADAPTER}, so that it holds no model.")
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
        source = f"{source.partition('@')[0]}@{first.parent.name}"  # the commit, so that all files go together
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
    if "architecture" not in settings:  # timm's config.json says itself how photos are preprocessed
        others += _processors(source, config.parent, download)
    return CheckpointFolder(name, config.parent, settings, weights, tuple(others))


def _adapter_beside(name: str, source: Path | str, download: bool) -> AdapterFolder | None:
    """An adapter whose folder has the base model's config.json as well."""
    config = _find(source, (ADAPTER,), download)
    if config is not None:
        return _adapter(name, source, config, _read_json(config), download)
    if download or isinstance(source, Path):
        raise CheckpointError(f"{name} has a {CONFIG} and no weights; looked for {', '.join(_WEIGHTS)}.")
    return None


def _adapter(
    name: str, source: Path | str, config: Path, settings: dict[str, Any], download: bool
) -> AdapterFolder | None:
    weights = _find(source, _ADAPTER_WEIGHTS, download)
    if weights is None:
        if isinstance(source, str) and not download:
            return None
        raise CheckpointError(f"{name} has an {ADAPTER} and no weights; looked for {', '.join(_ADAPTER_WEIGHTS)}.")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{ADAPTER} of {name} does not name its base model (base_model_name_or_path). Load it with PEFT onto the "
            "base model and give the result to wrap."
        )
    revision = settings.get("revision")  # of the base model
    hub_name = f"{HUB}{base}@{revision}" if revision else f"{HUB}{base}"
    base_name = base if _is_dir(Path(base)) else hub_name
    check_folder_name(base_name)
    opened = _open(base_name, download)
    if isinstance(opened, AdapterFolder):
        raise CheckpointError(
            f"The base model {base} of the adapter {name} is an adapter as well; merge that one first."
        )
    if opened is None:
        return None
    return AdapterFolder(
        name, config.parent, settings, weights, opened, tuple(_processors(source, config.parent, download))
    )


def _processors(source: Path | str, folder: Path, download: bool) -> list[Path]:
    """Files that say how photos are preprocessed, in the folder where the rest is."""
    try:
        first = _find(source, PROCESSORS, download)
    except InputError as error:
        raise InputError(f"{error} If the cache has all that the repository has, give its folder: {folder}.") from error
    if first is None:
        return []
    return [path for name in PROCESSORS if (path := first.parent / name).is_file()]


def _find(source: Path | str, names: tuple[str, ...], download: bool) -> Path | None:
    """The first of these files that a folder, or a repository, has."""
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
            raise CheckpointError(f"{index} names {name}, which is not there.")
        shards.append(path)
    return tuple(shards)


def _plain(name: Any) -> bool:
    """True for a file beside the index: a name with a folder in it could lead anywhere."""
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
            f"{name!r} is no repository of the Hugging Face hub; write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION."
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
    except (OSError, RuntimeError):  # a name that is too long, or a home that is not there
        return False
