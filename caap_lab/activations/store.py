"""Recorded activations, indexable by name, layer and image; stored on disk as safetensors shards."""

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from caap_lab.activations.shards import SHARD_BYTES, SHARDS, Shard, bytes_per_image, check_disk, write_shard
from caap_lab.digests.fingerprint import same_model, weights_of
from caap_lab.digests.tensors import named_tensors_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, has_form, read_json, recover
from caap_lab.labels import counted
from caap_lab.models.activation_summary import Kept, html_summary, memory, text_summary
from caap_lab.models.device_dtype import as_dtype
from caap_lab.models.names import layer_of, short_name
from caap_lab.models.stored_names import find_stored, is_stored

if TYPE_CHECKING:
    from caap_lab.models.vit import HookedViT

INDEX = "store.json"
FORMAT = 1
_FORM = {"format": int, "model": str, "fingerprint": str, "dtype": str, "shapes": {str: [int]}, "shards": [list]}
"""Types of the fields of store.json. `digest`, missing in older versions, covers all others and implies checksums."""
_OPTIONAL = {"replacement": str, "n_layers": int}
"""Optional fields: the description of replacements, and the number of blocks, which older versions did not write."""


@dataclass(frozen=True)
class ActivationStore:
    """Activations of images under one model.

    ```python
    store = model.record(images, ["resid_pre", "pattern", "logits"])
    store["resid_pre", 3]  # [image, token, d_model] of layer 3; -1 is the model's last layer
    store["logits"]  # a hook point outside the blocks
    store[0], store[:2]  # stores of only these images
    ```

    Short names are those of TransformerLens, as in the cache of `model.run_with_cache`. In Jupyter it is displayed as a
    table with one line per kind of activation.
    """

    model_name: str
    fingerprint: str
    shapes: dict[str, tuple[int, ...]]
    """Shape of the activation for one image, by full hook name."""
    dtype: torch.dtype
    shards: tuple[Shard, ...]
    replacement: str = ""
    """Description of replaced activations, such as "mean over 32 images"; empty for the images' own activations."""
    n_layers: int | None = None
    """Number of blocks of the model, for negative layers; None if an older version wrote the store."""

    def __len__(self) -> int:
        """Number of images."""
        return sum(shard.stop - shard.start for shard in self.shards)

    @property
    def device(self) -> torch.device:
        """Device of the activations when they are read."""
        source = self.shards[0].source
        if isinstance(source, Path):
            return torch.device("cpu")
        return next(iter(source.values())).device if isinstance(source, dict) else source.device

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
        return is_stored(self.shapes, key, self.n_layers)

    def __getitem__(self, key: Any) -> Any:
        """A tensor for a name or (name, layer); a store for an image index or a slice of images."""
        if isinstance(key, (Integral, slice)):
            return self._images(key if isinstance(key, slice) else int(key))
        if not isinstance(key, (str, tuple)):
            raise InputError(f"A store takes a name, a (name, layer), an image number or a slice, not {key!r}.")
        hook = find_stored(self.shapes, key, self.n_layers, "this store")
        parts = [shard.read(hook) for shard in self.shards]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator["ActivationStore"]:
        """Stores of one image each."""
        return (self._images(image) for image in range(len(self)))

    def _images(self, key: int | slice) -> "ActivationStore":
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise InputError(f"Image {key} is not in this store of {counted(len(self), 'image')}.")
            key = slice(key % len(self), key % len(self) + 1)
        start, stop, step = key.indices(len(self))
        if step != 1 or start >= stop:
            images = counted(len(self), "image")
            raise InputError(f"A store of {images} is sliced in steps of one, to at least one image.")
        shards, offset = [], 0
        for shard in self.shards:
            size = shard.stop - shard.start
            low, high = max(start - offset, 0), min(stop - offset, size)
            if low < high:
                shards.append(replace(shard, start=shard.start + low, stop=shard.start + high))
            offset += size
        return replace(self, shards=tuple(shards))

    # -- replacements: sources for patches that are less harmful to a model than zeros -----------------------------

    def mean(self, over: str | Sequence[str] = "image") -> "ActivationStore":
        """A store of one image: the mean activations, as a source for patches.

        Sums are computed in float64, reading a few images at a time, for any format and size of the store.

        Args:
            over: "image", for a separate mean per token, or ("image", "token"), for the same mean for all tokens; for
                attention scores and patterns the tokens are the queries.

        Raises:
            InputError: an activation has no tokens to average over, such as logits.
        """
        from caap_lab.activations.replacements import mean

        return mean(self, over)

    def shuffled(self, seed: int = 0) -> "ActivationStore":
        """For each image the activations of another one, never its own; each is used once.

        Args:
            seed: Seed of the order, drawn from all orders that leave no image in its place.

        Raises:
            InputError: there is only one image.
        """
        from caap_lab.activations.replacements import shuffled

        return shuffled(self, seed)

    def noise(self, seed: int = 0) -> "ActivationStore":
        """Gaussian noise with the mean and the standard deviation of each channel, over images and tokens.

        A channel is per head for q, k, v and z, and a key per head for attention scores and patterns. The noise of an
        image depends only on the seed and its index, and is generated when it is read.

        Args:
            seed: Seed of the noise.
        """
        from caap_lab.activations.replacements import noise

        return noise(self, seed)

    def class_mean(self, labels: Sequence[Hashable], of: Any = None) -> "ActivationStore":
        """For each image the mean over all images of its class, itself included.

        Args:
            labels: The class of each image, in order.
            of: A class, for a store of one image with its mean; or one class per image for other images.

        Raises:
            InputError: the number of labels is not that of the images, or there is no image of a class.
        """
        from caap_lab.activations.replacements import class_mean

        return class_mean(self, labels, of)

    # -- the model, and files -------------------------------------------------------------------------------------

    def require_model(self, model: "HookedViT") -> None:
        """Raise InputError for a model other than the recorded one."""
        if not same_model(self.fingerprint, model.fingerprint):
            same = weights_of(self.fingerprint) == weights_of(model.fingerprint)
            differ = (
                "The weights are the same, but not the structure: a setting, a module or a function inside the model "
                "was changed, or timm or PyTorch builds it differently in this version"
                if same
                else "The weights are not the same"
            )
            raise InputError(
                f"This store was recorded with {self.model_name} ({self.fingerprint}); it cannot be used with "
                f"{model.model_name} ({model.fingerprint}). {differ}. Record the images again with this model."
            )

    def save(self, path: str | Path) -> Path:
        """Save the store as a folder of safetensors shards; an existing store there is replaced atomically.

        Raises:
            InputError: the folder holds something else, or the disk is too full.
        """
        target = Path(path)
        check_target(target)
        check_disk(target, self.nbytes)
        with atomic_path(target) as part:
            part.mkdir()
            recording = uuid4().hex[:8]
            written = []
            for group in self._files():
                write_shard(part, {h: torch.cat([shard.read(h) for shard in group]) for h in self.shapes}, recording)
                written.append(Shard({}, 0, sum(shard.stop - shard.start for shard in group)))
            write_index(part, replace(self, shards=tuple(written)))
        return target

    @classmethod
    def open(cls, path: str | Path, model: "HookedViT | None" = None) -> "ActivationStore":
        """A saved store, opened lazily: activations are read from disk when they are used, only for the images used.

        Args:
            path: The folder.
            model: If given, the store must come from this model.

        Raises:
            InputError: the folder is not a store, is damaged, or comes from another model.
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
            replacement=index.get("replacement", ""),
            n_layers=index.get("n_layers"),
        )
        missing = [name for name, _ in index["shards"] if not (folder / name).exists()]
        if missing:
            raise InputError(f"{folder} lacks {missing[0]}; copy the complete folder, or record the activations again.")
        if model is not None:
            store.require_model(model)
        return store

    def _files(self) -> list[list[Shard]]:
        """Groups of shards to write into one file each: replacements of many images have as many shards."""
        most = max(1, SHARD_BYTES // max(1, bytes_per_image(self.shapes, self.dtype)))
        groups: list[list[Shard]] = []
        for shard in self.shards:
            size = sum(s.stop - s.start for s in (*groups[-1], shard)) if groups else 0
            if groups and self.replacement and size <= most:
                groups[-1].append(shard)
            else:
                groups.append([shard])
        return groups

    def _title(self) -> str:
        what = f"{self.replacement}, for " if self.replacement else ""
        size = f"{counted(len(self), 'image')} of {self.model_name}"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"ActivationStore: {what}{size}, {memory(self.nbytes)}, {dtype}"

    def _kept(self) -> list[Kept]:
        size = self.dtype.itemsize * len(self)
        return [Kept(hook, (len(self), *shape), size * prod(shape)) for hook, shape in self.shapes.items()]

    def __repr__(self) -> str:
        """Names, layers, shapes and memory, one line for each kind of activation."""
        return text_summary(self._title(), self._kept())

    def _repr_html_(self) -> str:
        return html_summary(self._title(), self._kept())


def check_target(path: Path) -> None:
    """Raise InputError for an existing path that is not exactly an activation store."""
    if not path.exists():
        return
    own = {path / INDEX, *path.glob(SHARDS)} if path.is_dir() else set()
    others = [other for other in path.iterdir() if other not in own] if path.is_dir() else [path]
    if others:
        raise InputError(
            f"{path} exists and is not just an activation store (it has {others[0].name}); choose another path."
        )


def write_index(folder: Path, store: ActivationStore) -> None:
    """Write the index of the shards."""
    files = sorted(path.name for path in folder.glob(SHARDS))
    index: dict[str, Any] = {
        "format": FORMAT,
        "model": store.model_name,
        "fingerprint": store.fingerprint,
        "dtype": str(store.dtype).removeprefix("torch."),
        "shapes": store.shapes,
        "shards": [(name, s.stop - s.start) for name, s in zip(files, store.shards, strict=True)],
    }
    if store.replacement:
        index["replacement"] = store.replacement
    if store.n_layers is not None:
        index["n_layers"] = store.n_layers
    (folder / INDEX).write_text(json.dumps(index | {"digest": _digest(index)}, indent=1))


def _check_index(index: dict[str, Any], folder: Path) -> None:
    """Raise InputError for a store.json that is damaged, or that names files outside its folder."""
    damaged = f"{folder / INDEX} is damaged ({{}}); record the activations again."
    form = _FORM | {name: kind for name, kind in _OPTIONAL.items() if name in index}
    if not has_form(index, form) or not all(has_form(row, [(str, int)]) and len(row) == 2 for row in index["shards"]):
        raise InputError(damaged.format("something in it is missing or of the wrong kind"))
    rest = {key: value for key, value in index.items() if key != "digest"}
    if set(rest) - set(_OPTIONAL) != set(_FORM) or ("digest" in index and index["digest"] != _digest(rest)):
        raise InputError(damaged.format("it has changed since it was written"))
    for name, rows in index["shards"]:
        if not isinstance(name, str) or not isinstance(rows, int) or rows < 1:
            raise InputError(damaged.format(f"{name!r} with {rows!r} rows is not a shard"))
        if Path(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise InputError(f"{folder / INDEX} names {name!r}, which is outside the store's folder; it is not read.")


def _digest(index: dict[str, Any]) -> str:
    return named_tensors_digest(json.dumps(index, sort_keys=True))
