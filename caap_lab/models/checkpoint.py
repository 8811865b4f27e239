"""Weights from files: read without running code, and loaded completely or not at all."""

import argparse
import pickle
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import HybridEmbed
from timm.models.densenet import DenseNet, _filter_torchvision_pretrained
from timm.models.vgg import VGG, _filter_fn
from torch import Tensor, nn

from caap_lab.errors import CheckpointError
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.timm_layouts import as_timm_vit
from caap_lab.models.weight_sets import find_weights

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


class _PathParts(tuple[str, ...]):
    """Stand-in for a path among hyper-parameters."""

    def __new__(cls, *parts: str) -> "_PathParts":
        return super().__new__(cls, parts)


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_MOST_UNPACKED = 20
"""Largest allowed ratio of unpacked to packed size: PyTorch does not compress, and weights barely compress."""
_CLASSIFIERS = [(f"{module}.weight", 0) for module in ("head", "head.fc", "fc", "classifier")]
_PROJECTIONS = (("visual.head.proj.weight", 0), ("visual.proj", 1), ("image_encoder.model.classifier.proj", 1))
"""Projections of CLIP's image towers, as named by open_clip, OpenAI and MobileCLIP, with their output axis."""
_MOST_SHOWN = 4
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *(
        (dict, f"{module}.AttributeDict")
        for module in (
            *("lightning.fabric.utilities.data", "lightning_fabric.utilities.data"),
            *("lightning.pytorch.utilities.parsing", "pytorch_lightning.utilities.parsing"),
        )
    ),
    *((_PathParts, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS),
]
"""Classes that training scripts save with the weights: arguments, Lightning's hyper-parameters, paths. A Namespace
only holds values; the others are replaced by classes that only hold values."""
_LFS_POINTER = b"version https://git-lfs"


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU.

    Reads .safetensors, and .pth, .pt, .bin, .ckpt with PyTorch's restricted unpickler, which runs no code. Wrappers of
    training scripts are removed: keys such as "state_dict_ema", "model" or "teacher" (of several known to timm, the one
    that timm prefers), and name prefixes such as "module.", "_orig_mod." and "backbone.".

    Args:
        path: The file.
        key: Which set of weights to load from a file with several, such as a teacher's and a student's: its key, or the
            prefix of its names.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, without tensors, or contains code; or it holds
            several sets of weights none of which timm prefers, or tensors larger than the file.
    """
    path = Path(path)
    state = find_weights(_read(path), path, key)
    _check_held(path, state)
    return state


def read_tensors(path: Path, start: int = 0) -> dict[str, Tensor]:
    """Tensors of a file that holds nothing else, under the names in the file, on the CPU.

    Args:
        path: The file.
        start: Number of bytes before the part that PyTorch wrote.

    Raises:
        CheckpointError: as `read_state_dict`; also if the file holds anything but tensors.
    """
    content = _read(path, start)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds something other than weights by name.")
    _check_held(path, content)
    return content


def load_into(vit: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load weights into a timm ViT strictly; other layouts that timm knows are converted first.

    Position embeddings of another image size are resampled to the model's grid.

    Raises:
        CheckpointError: a weight is missing, unexpected, of the wrong shape or not finite; the model is unchanged.
    """
    _check_patch_size(vit, state_dict)
    try:
        state = as_timm_vit(vit, state_dict, model_label(vit))
    except (KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"The checkpoint does not fit {model_label(vit)}: {error}.{_sizes(vit, state_dict)}"
        ) from error
    load_exactly(vit, state)


def load_exactly(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights whose names and shapes are exactly the model's.

    Raises:
        CheckpointError: a weight is missing, unexpected, of the wrong shape or not finite; the model is unchanged.
    """
    own = model.state_dict()
    _check_fit(model, own, state)
    for name, value in state.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise CheckpointError(f"{name} in the checkpoint holds {value.dtype}, not floating-point weights.")
        if not all_finite(value):
            raise CheckpointError(f"{name} in the checkpoint holds NaN or infinity.")
    model.load_state_dict(state, strict=True)


def as_timm_cnn(cnn: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CNN's weights under timm's names, from timm's or torchvision's; batch counters may be missing.

    Raises:
        CheckpointError: weights with torchvision's names have the wrong shapes.
    """
    convert = {DenseNet: _filter_torchvision_pretrained, VGG: _filter_fn}.get(type(cnn), dict)
    try:
        state = convert(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"The checkpoint does not fit {model_label(cnn)}: {error}.") from error
    # Batch counters matter only for training with another momentum; files from before 2018 have none.
    counters = [name for name in cnn.state_dict() if name.endswith("num_batches_tracked")]
    return {name: torch.tensor(0, dtype=torch.long, device="cpu") for name in counters} | state


def count_classes(state_dict: dict[str, Tensor]) -> int:
    """Number of rows of the classifier (or of CLIP's projection) in a checkpoint; 0 if it has none."""
    for name, axis in (*_CLASSIFIERS, *_PROJECTIONS):
        if name in state_dict and state_dict[name].ndim == 2:
            return state_dict[name].shape[axis]
    return 0


def model_label(model: nn.Module) -> str:
    """Timm's name of a model, or its class."""
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__


def check_file(path: Path) -> None:
    """Raise CheckpointError for what cannot be a checkpoint file, without reading it.

    Raises:
        CheckpointError: there is no such file, it has another extension, is empty, or was not fetched by Git LFS.
    """
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder without read permission
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not there:
        raise CheckpointError(f"There is no checkpoint file {path}.")
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path} is a peft adapter, which holds changes to another model's weights. Give the folder alone, "
            "load_model(FOLDER), which loads the base model that it names; or load it with peft and wrap the model: "
            "cl.wrap(peft.PeftModel.from_pretrained(base_model, folder))."
        )
    if path.is_dir():
        whole = " Or give the folder alone, load_model(FOLDER)." if (path / "config.json").is_file() else ""
        raise CheckpointError(f"{path} is a folder; give the weights file in it.{whole}")
    if path.suffix not in (".safetensors", *_TORCH_SUFFIXES):
        kinds = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise CheckpointError(f"{path} has the extension {path.suffix or '(none)'}; expected one of {kinds}.")
    if not path.is_file():  # reading a pipe would wait forever
        raise CheckpointError(f"{path} is a pipe or a device, not a weights file.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty.")
    if start == _LFS_POINTER:
        raise CheckpointError(f"{path} is a Git LFS pointer; `git lfs pull` gets the weights.")


def _check_held(path: Path, state: dict[str, Tensor]) -> None:
    """Raise CheckpointError for tensors larger than the file can hold: repeated bytes, sparse or without content."""
    size = path.stat().st_size
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise CheckpointError(f"{name} in {path} is sparse, quantised or without content, not plain weights.")
        if value.numel() * value.element_size() > max(_MOST_UNPACKED * size, value.untyped_storage().nbytes()):
            raise CheckpointError(
                f"{name} in {path} has shape {list(value.shape)}, which a file of {size:,} bytes cannot hold."
            )


def _check_unpacked(path: Path) -> None:
    """Raise CheckpointError for an archive that unpacks to far more than its size, before it is unpacked."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = path.stat().st_size
    if unpacked > _MOST_UNPACKED * size:
        raise CheckpointError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}; weights do not compress so well, so nothing "
            "was read. If you trust it, unpack it and save it with torch.save, which does not compress."
        )


def _read(path: Path, start: int = 0) -> Any:
    check_file(path)
    safe = path.suffix == ".safetensors"
    if safe and zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a PyTorch checkpoint with the wrong extension: rename it to {path.stem}.pth.")
    if not safe and _is_safetensors(path):
        raise CheckpointError(
            f"{path} is a safetensors file with the wrong extension: rename it to {path.stem}.safetensors."
        )
    return _read_safetensors(path) if safe else _read_pickle(path, start)


def _is_safetensors(path: Path) -> bool:
    """True if a file starts like a safetensors file: eight bytes with the length of a JSON text, then the text."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error


def _read_pickle(path: Path, start: int = 0) -> Any:
    try:
        _check_unpacked(path)
        # PyTorch warns about pickles that it did not write; unreadable ones are an error anyway.
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = BytesIO(path.read_bytes()[start:]) if start else path
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise CheckpointError(
                f"{path} is damaged, not a PyTorch checkpoint, or holds Python objects; nothing in it was run."
            ) from error
        raise CheckpointError(
            f"{path} holds Python objects besides weights ({named.group(1)}). Reading them could run code, so "
            "nothing in it was run. Save only the weights, preferably as safetensors: "
            "safetensors.torch.save_file(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # damaged archives raise many kinds of errors
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path} is a TorchScript program; save only its weights (state_dict).") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {reason}") from error


def _check_patch_size(vit: Any, state: dict[str, Tensor]) -> None:
    """Raise CheckpointError for another patch size: timm would resample to patches that were never trained."""
    if isinstance(vit.patch_embed, HybridEmbed):  # reads patches of feature maps, if it projects them
        return
    wanted = tuple(vit.patch_embed.proj.weight.shape[-2:])
    for name, value in state.items():
        if name.endswith(("patch_embed.proj.weight", "visual.conv1.weight")) and value.ndim == 4:
            given = tuple(value.shape[-2:])
            if given != wanted and "flexi" not in model_label(vit):
                raise CheckpointError(
                    f"This checkpoint reads patches of {given[0]} x {given[1]} pixels; {model_label(vit)} "
                    f"reads {wanted[0]} x {wanted[1]}.{_sizes(vit, state)}"
                )


def _check_fit(vit: nn.Module, own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if not (missing or unexpected or shapes):
        return
    report = [f"The checkpoint does not fit {model_label(vit)}; nothing was loaded.{_sizes(vit, state)}"]
    for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
        if found:
            more = ", ..." if len(found) > _MOST_SHOWN else ""
            report.append(f"{len(found)} {kind}: {', '.join(found[:_MOST_SHOWN])}{more}")
    raise CheckpointError("\n  ".join(report))


def _sizes(vit: nn.Module, state: dict[str, Tensor]) -> str:
    """A sentence about width and depth if they differ from the model's; empty if equal or unknown."""
    given, wanted = _width_and_depth(state), _width_and_depth(vit.state_dict())
    if given is None or wanted is None or given == wanted:
        return ""
    return (
        f" This checkpoint has width {given[0]} and {given[1]} blocks; "
        f"{model_label(vit)} has width {wanted[0]} and {wanted[1]}."
    )


def _width_and_depth(state: dict[str, Tensor]) -> tuple[int, int] | None:
    norm = state.get("blocks.0.norm1.weight")
    if norm is None or norm.ndim != 1:
        return None
    layers = {int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)}
    return norm.shape[0], len(layers)
