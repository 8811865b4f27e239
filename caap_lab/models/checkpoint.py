"""Weights from files: read without running code, and loaded all or not at all."""

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
from caap_lab.models.timm_layouts import as_timm_vit
from caap_lab.models.weight_sets import find_weights

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


class _PathParts(tuple[str, ...]):
    """In place of a path among hyper-parameters."""

    def __new__(cls, *parts: str) -> "_PathParts":
        return super().__new__(cls, parts)


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_MOST_UNPACKED = 20
"""How many times its own size a file may unpack to: PyTorch does not compress, and weights hardly can be."""
_CLASSIFIERS = [(f"{module}.weight", 0) for module in ("head", "head.fc", "fc", "classifier")]
_PROJECTIONS = (("visual.head.proj.weight", 0), ("visual.proj", 1), ("image_encoder.model.classifier.proj", 1))
"""Of CLIP's image towers, in the layouts of open_clip, OpenAI and MobileCLIP; with the axis of the outputs."""
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
"""What training scripts put beside the weights: arguments, Lightning's hyper-parameters, paths. A Namespace only holds
values; in the place of the others, something is made that only holds values."""
_LFS_POINTER = b"version https://git-lfs"


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU.

    Reads .safetensors, and .pth, .pt, .bin, .ckpt with PyTorch's restricted unpickler, which runs no code. Weights are
    taken out of what training scripts put around them: keys such as "state_dict_ema", "model" or "teacher" (of several
    that timm knows, the one that timm takes), and "module.", "_orig_mod.", "backbone." and the like in front of names.

    Args:
        path: The file.
        key: Which set of weights to take where the file holds several, such as a teacher's and a student's: its key, or
            what stands in front of its names.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, without tensors, or has code in it; or holds
            several sets of weights of which timm would not choose one, or tensors that are larger than it.
    """
    path = Path(path)
    state = find_weights(_read(path), path, key)
    _check_held(path, state)
    return state


def read_tensors(path: Path, start: int = 0) -> dict[str, Tensor]:
    """Tensors of a file that holds nothing else, under the names that stand in it, on the CPU.

    Args:
        path: The file.
        start: Bytes in front of what PyTorch has written.

    Raises:
        CheckpointError: as `read_state_dict`; also where something else than tensors is in it.
    """
    content = _read(path, start)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds something else than weights by name.")
    _check_held(path, content)
    return content


def load_into(vit: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load weights into a timm ViT, strictly; other layouts that timm knows are converted first.

    Position embeddings of another image size are resampled to the model's grid.

    Raises:
        CheckpointError: a weight is missing, left over, misshapen or not finite; the model is unchanged.
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
    """Load weights whose names and shapes are the model's own.

    Raises:
        CheckpointError: a weight is missing, left over, misshapen or not finite; the model is unchanged.
    """
    own = model.state_dict()
    _check_fit(model, own, state)
    for name, value in state.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise CheckpointError(f"{name} in the checkpoint holds {value.dtype}, not floating-point weights.")
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{name} in the checkpoint holds NaN or infinity.")
    model.load_state_dict(state, strict=True)


def as_timm_cnn(cnn: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CNN's weights under timm's names, from these or torchvision's; counters of batches may be missing.

    Raises:
        CheckpointError: weights with torchvision's names have other shapes.
    """
    convert = {DenseNet: _filter_torchvision_pretrained, VGG: _filter_fn}.get(type(cnn), dict)
    try:
        state = convert(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"The checkpoint does not fit {model_label(cnn)}: {error}.") from error
    # Only training with another momentum reads them, and files from before 2018 have none.
    counters = [name for name in cnn.state_dict() if name.endswith("num_batches_tracked")]
    return {name: torch.tensor(0, dtype=torch.long, device="cpu") for name in counters} | state


def count_classes(state_dict: dict[str, Tensor]) -> int:
    """Rows of the classifier (or of CLIP's projection) in a checkpoint; 0 if it has none."""
    for name, axis in (*_CLASSIFIERS, *_PROJECTIONS):
        if name in state_dict and state_dict[name].ndim == 2:
            return state_dict[name].shape[axis]
    return 0


def model_label(model: nn.Module) -> str:
    """Name of a model in timm, or its class."""
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__


def check_file(path: Path) -> None:
    """Refuse what cannot be a checkpoint, without reading it.

    Raises:
        CheckpointError: there is no such file, it has another ending, it is empty, or Git LFS has not fetched it.
    """
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be read
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
        raise CheckpointError(f"{path} has the ending {path.suffix or '(none)'}; known are {kinds}.")
    if not path.is_file():  # reading a pipe would wait for ever
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
    """Refuse tensors whose shape says more than the file holds: a few bytes repeated, sparse or without content."""
    size = path.stat().st_size
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise CheckpointError(f"{name} in {path} is sparse, quantised or without content, not plain weights.")
        if value.numel() * value.element_size() > max(_MOST_UNPACKED * size, value.untyped_storage().nbytes()):
            raise CheckpointError(
                f"{name} in {path} says {list(value.shape)}, and the file of {size:,} bytes cannot hold so much."
            )


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that unpacks to far more than its size, before any memory is taken."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = path.stat().st_size
    if unpacked > _MOST_UNPACKED * size:
        raise CheckpointError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}; weights do not shrink like that, so nothing "
            "was read. If you trust it, unpack it and save it with torch.save, which does not compress."
        )


def _read(path: Path, start: int = 0) -> Any:
    check_file(path)
    safe = path.suffix == ".safetensors"
    if safe and zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a PyTorch checkpoint with another ending: rename it to {path.stem}.pth.")
    if not safe and _is_safetensors(path):
        raise CheckpointError(
            f"{path} is a safetensors file with another ending: rename it to {path.stem}.safetensors."
        )
    return _read_safetensors(path) if safe else _read_pickle(path, start)


def _is_safetensors(path: Path) -> bool:
    """True if a file begins as safetensors do: eight bytes with the length of a JSON text, and the text."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def _read_pickle(path: Path, start: int = 0) -> Any:
    try:
        _check_unpacked(path)
        # PyTorch warns about pickles that it has not written; what it cannot read is an error anyway.
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
                f"{path} is damaged, no PyTorch checkpoint, or holds Python objects; nothing in it was run."
            ) from error
        raise CheckpointError(
            f"{path} holds Python objects beside weights ({named.group(1)}). Reading them could run code, so "
            "nothing in it was run. Save the weights alone, best as safetensors: "
            "safetensors.torch.save_file(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # damaged archives raise errors of many kinds
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path} is a TorchScript program; save its weights (state_dict) alone.") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint: {reason}") from error


def _check_patch_size(vit: Any, state: dict[str, Tensor]) -> None:
    """Refuse patches of another size, which timm would resample to something that was never trained."""
    if isinstance(vit.patch_embed, HybridEmbed):  # reads patches of feature maps, if it projects them at all
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
    """A sentence about width and depth, if they are not the model's; empty if they are, or cannot be seen."""
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
