"""Recorded activations: indexable by name, layer and image; on disk as safetensors shards."""

import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caap_lab.digests.fingerprint import same_model, weights_of
from caap_lab.digests.tensors import named_tensors_digest, raw_bytes
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, has_form, read_json, recover, save_tensors
from caap_lab.models.device_dtype import as_dtype
from caap_lab.models.names import layer_of, short_name

if TYPE_CHECKING:
    from caap_lab.models.vit import HookedViT

INDEX = "store.json"
SHARDS = "shard-*.safetensors"
FORMAT = 1
_CHECKSUMS = "checksums of "
"""In shards, before the name of the activation whose rows the checksums are of."""
_FORM = {"format": int, "model": str, "fingerprint": str, "dtype": str, "shapes": {str: [int]}, "shards": [list]}
"""Of store.json. Its `digest`, which older versions did not write, is of all the rest and promises checksums."""


_AGAIN = "Open the store again, or record the activations again."


@dataclass(frozen=True)
class Shard:
    """Rows start to stop - 1 (images) of tensors in memory or in a safetensors file."""

    source: dict[str, Tensor] | Path
    start: int
    stop: int
    checked: bool = False
    """True if the file holds a checksum of every row."""

    def read(self, hook: str) -> Tensor:
        """Rows of one activation; from a file, only these rows are read, and compared with their checksums."""
        if isinstance(self.source, dict):
            return self.source[hook][self.start : self.stop]
        try:
            with safe_open(self.source, framework="pt") as file:
                rows = file.get_slice(hook)[self.start : self.stop]
                expected = file.get_slice(_CHECKSUMS + hook)[self.start : self.stop] if self.checked else None
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.source} cannot be read ({error}): it was replaced or damaged. {_AGAIN}") from error
        if expected is not None and not torch.equal(expected, _checksums(rows)):
            raise InputError(f"{self.source} is damaged: its values are not those that were written. {_AGAIN}")
        return rows


@dataclass(frozen=True)
class ActivationStore:
    """Activations of images under one model.

    `store["resid_pre", 3]` is [image, token, d_model]; `store["logits"]` a point outside the blocks; `store[7]` and
    `store[10:20]` are stores of these images alone.
    """

    model_name: str
    fingerprint: str
    shapes: dict[str, tuple[int, ...]]
    """Full hook name to the shape of one image's activation."""
    dtype: torch.dtype
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        """Number of images."""
        return sum(shard.stop - shard.start for shard in self.shards)

    @property
    def nbytes(self) -> int:
        """Bytes of all activations."""
        return len(self) * bytes_per_image(self.shapes, self.dtype)

    @property
    def names(self) -> list[tuple[str, int | None]]:
        """(short name, layer) of everything stored, in order of the forward pass."""
        return [(short_name(hook), layer_of(hook)) for hook in self.shapes]

    def __contains__(self, key: Any) -> bool:
        """True if a name, or a (name, layer), is stored."""
        name, layer = key if isinstance(key, tuple) else (key, None)
        return self._fits(name, layer) != []

    def __getitem__(self, key: Any) -> Any:
        """A tensor for a name or (name, layer); a store for an image number or a slice of images."""
        if isinstance(key, (Integral, slice)):
            return self._images(key if isinstance(key, slice) else int(key))
        if not isinstance(key, (str, tuple)):
            raise InputError(f"A store takes a name, a (name, layer), an image number or a slice, not {key!r}.")
        name, layer = key if isinstance(key, tuple) else (key, None)
        hook = self._hook(name, layer)
        parts = [shard.read(hook) for shard in self.shards]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator["ActivationStore"]:
        """Stores of one image each."""
        return (self._images(image) for image in range(len(self)))

    def _fits(self, name: str, layer: int | None) -> list[str]:
        wanted = name.replace("hook_", "")
        return [
            hook
            for hook in self.shapes
            if hook == name
            or (layer_of(hook) == layer and wanted in (short_name(hook), short_name(hook).split(".")[-1]))
        ]

    def _hook(self, name: str, layer: int | None) -> str:
        fits = self._fits(name, layer)
        if len(fits) == 1:
            return fits[0]
        where = "" if layer is None else f" of layer {layer}"
        if fits:
            raise InputError(f"{name!r}{where} could be any of {', '.join(map(short_name, fits))}.")
        raise InputError(f"{name!r}{where} is not in this store, which holds {self._contents()}.")

    def _images(self, key: int | slice) -> "ActivationStore":
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise InputError(f"Image {key} is not in this store of {len(self)} images.")
            key = slice(key % len(self), key % len(self) + 1)
        start, stop, step = key.indices(len(self))
        if step != 1 or start >= stop:
            raise InputError(f"A store of {len(self)} images is sliced in steps of one, to at least one image.")
        shards, offset = [], 0
        for shard in self.shards:
            size = shard.stop - shard.start
            low, high = max(start - offset, 0), min(stop - offset, size)
            if low < high:
                shards.append(replace(shard, start=shard.start + low, stop=shard.start + high))
            offset += size
        return replace(self, shards=tuple(shards))

    def require_model(self, model: "HookedViT") -> None:
        """Refuse to be used with a model other than the one that was recorded."""
        if not same_model(self.fingerprint, model.fingerprint):
            same = weights_of(self.fingerprint) == weights_of(model.fingerprint)
            differ = (
                "The weights are the same, but not the structure: a setting, a module or a function inside the model "
                "was changed, or timm or PyTorch builds it in another way in this version"
                if same
                else "The weights are not the same"
            )
            raise InputError(
                f"This store was recorded with {self.model_name} ({self.fingerprint}); it cannot be used with "
                f"{model.model_name} ({model.fingerprint}). {differ}. Record the images again with this model."
            )

    def save(self, path: str | Path) -> Path:
        """Write the store to a folder of safetensors shards; an older store there is replaced in one step.

        Raises:
            InputError: the folder holds something else, or the disk has too little room.
        """
        target = Path(path)
        check_target(target)
        check_disk(target, self.nbytes)
        with atomic_path(target) as part:
            part.mkdir()
            recording = uuid4().hex[:8]
            for shard in self.shards:
                write_shard(part, {hook: shard.read(hook) for hook in self.shapes}, recording)
            write_index(part, self)
        return target

    @classmethod
    def open(cls, path: str | Path, model: "HookedViT | None" = None) -> "ActivationStore":
        """Open a saved store; activations are read from disk when they are used, and only those of the images used.

        Args:
            path: The folder.
            model: If given, the store must come from this model.

        Raises:
            InputError: not a store, damaged, or from another model.
        """
        folder = Path(path)
        recover(folder)
        try:
            index = read_json(folder / INDEX, {"format": True}, "record the activations again")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise InputError(f"{folder} is not an activation store: it has no {INDEX}.") from None
        except OSError as error:
            raise InputError(f"{folder / INDEX} cannot be read ({error.strerror}).") from None
        if index["format"] != FORMAT:
            raise InputError(f"{folder} has store format {index['format']}; this version reads {FORMAT}.")
        _check_index(index, folder)
        store = cls(
            model_name=index["model"],
            fingerprint=index["fingerprint"],
            shapes={hook: tuple(shape) for hook, shape in index["shapes"].items()},
            dtype=as_dtype(index["dtype"]),
            shards=tuple(Shard(folder / name, 0, rows, "digest" in index) for name, rows in index["shards"]),
        )
        missing = [name for name, _ in index["shards"] if not (folder / name).exists()]
        if missing:
            raise InputError(f"{folder} lacks {missing[0]}; copy the whole folder, or record the activations again.")
        if model is not None:
            store.require_model(model)
        return store

    def _contents(self) -> str:
        layers: dict[str, list[int]] = {}
        for name, layer in self.names:
            layers.setdefault(name, []).extend([] if layer is None else [layer])
        return ", ".join(
            name + (f" (layers {_ranges(numbers)})" if numbers else "") for name, numbers in layers.items()
        )

    def __repr__(self) -> str:
        """Names, layers, shapes and size."""
        lines = [
            f"ActivationStore: {len(self)} images of {self.model_name}, {self.nbytes / 2**20:.1f} MiB, {self.dtype}"
        ]
        layers: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for hook, shape in self.shapes.items():
            layer = layer_of(hook)
            layers.setdefault((short_name(hook), shape), []).extend([] if layer is None else [layer])
        for (name, shape), numbers in layers.items():
            where = f"  layers {_ranges(numbers)}" if numbers else ""
            lines.append(f"  {name:<16}[{', '.join(map(str, (len(self), *shape)))}]{where}")
        return "\n".join(lines)


def bytes_per_image(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    """Bytes that one image's activations take."""
    return sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize


def check_target(path: Path) -> None:
    """Refuse to write a store over anything that is not one, or that holds more than one."""
    if not path.exists():
        return
    own = {path / INDEX, *path.glob(SHARDS)} if path.is_dir() else set()
    others = [other for other in path.iterdir() if other not in own] if path.is_dir() else [path]
    if others:
        raise InputError(
            f"{path} exists and is not an activation store alone ({others[0].name} is there); choose another place."
        )


def check_disk(path: Path, nbytes: int) -> None:
    """Refuse to start writing what cannot fit."""
    folder = next(p for p in [path.parent, *path.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise InputError(
            f"The store needs {nbytes / 2**20:,.1f} MiB and {folder} has {free / 2**20:,.1f} MiB free. "
            "Record fewer names, layers or images, or dtype='float16'."
        )


def write_shard(folder: Path, tensors: dict[str, Tensor], recording: str) -> None:
    """Write the next shard of a store being made.

    `recording` is new for every store written, so that one that is open finds its own shards or none, never those of
    another that has taken its place.
    """
    number = len(list(folder.glob(SHARDS)))
    tensors = {**tensors, **{_CHECKSUMS + hook: _checksums(rows) for hook, rows in tensors.items()}}
    save_tensors(tensors, folder / f"shard-{recording}-{number:05d}.safetensors")


def write_index(folder: Path, store: ActivationStore) -> None:
    """Write what the shards hold."""
    files = sorted(path.name for path in folder.glob(SHARDS))
    index: dict[str, Any] = {
        "format": FORMAT,
        "model": store.model_name,
        "fingerprint": store.fingerprint,
        "dtype": str(store.dtype).removeprefix("torch."),
        "shapes": store.shapes,
        "shards": [(name, s.stop - s.start) for name, s in zip(files, store.shards, strict=True)],
    }
    (folder / INDEX).write_text(json.dumps(index | {"digest": _digest(index)}, indent=1))


def _check_index(index: dict[str, Any], folder: Path) -> None:
    """Refuse a store.json that is damaged, or that names files outside its folder."""
    damaged = f"{folder / INDEX} is damaged ({{}}); record the activations again."
    if not has_form(index, _FORM) or not all(has_form(row, [(str, int)]) and len(row) == 2 for row in index["shards"]):
        raise InputError(damaged.format("something in it is missing or of the wrong kind"))
    rest = {key: value for key, value in index.items() if key != "digest"}
    if set(rest) != set(_FORM) or ("digest" in index and index["digest"] != _digest(rest)):
        raise InputError(damaged.format("it is not what was written"))
    for name, rows in index["shards"]:
        if not isinstance(name, str) or not isinstance(rows, int) or rows < 1:
            raise InputError(damaged.format(f"{name!r} with {rows!r} rows is no shard"))
        if Path(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise InputError(f"{folder / INDEX} names {name!r}, which lies outside the store's folder; it is not read.")


def _digest(index: dict[str, Any]) -> str:
    return named_tensors_digest(json.dumps(index, sort_keys=True))


def _checksums(rows: Tensor) -> Tensor:
    """CRC-32 of each row's bytes."""
    content = raw_bytes(rows)
    size = len(content) // max(1, len(rows))
    checksums = [zlib.crc32(content[row * size : (row + 1) * size]) for row in range(len(rows))]
    return torch.tensor(checksums, dtype=torch.int64, device="cpu")


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 -> "0-2, 5"."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
