"""Weights from files: read without running code, and loaded all or not at all."""

import argparse
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import eva
from timm.models.densenet import DenseNet, _filter_torchvision_pretrained
from timm.models.vgg import VGG, _filter_fn
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from caap_lab.errors import CheckpointError

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state")
"""Where training scripts put weights; of several, the first is taken, in timm's order: averaged ones come first."""
_MOST_UNPACKED = 20
"""How many times its own size a file may unpack to: PyTorch does not compress, and weights hardly can be."""
_PREFIXES = ("module.", "model.", "backbone.")
_CLASSIFIERS = [(f"{module}.weight", 0) for module in ("head", "head.fc", "fc", "classifier")]
_MOST_SHOWN = 4
_LFS_POINTER = b"version https://git-lfs"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU.

    Reads .safetensors, and .pth, .pt, .bin, .ckpt with PyTorch's restricted unpickler, which runs no code.
    Weights inside "state_dict_ema", "model_ema", "state_dict", "model" or "model_state" are taken out, of several the
    first in this order, as timm takes them; "module.", "model." or "backbone." in front of every name is taken off.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, without tensors, or has code in it; or holds
            several sets of weights of which timm would not choose one, or tensors that are larger than it.
    """
    path = Path(path)
    check_file(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    while isinstance(content, dict):
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if key is None:
            break
        _check_one_set(path, content, key)
        content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name.")
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        sets = [str(key) for key, value in content.items() if isinstance(value, dict) and _weights(value)]
        if sets:
            raise CheckpointError(f"{path} holds weights as {_several(sets)}, and which to load is not known.{_CHOOSE}")
        shown = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
        raise CheckpointError(f"{path} holds no weights by name; found {shown}.")
    _check_held(path, state)
    return _without_prefix(state)


def load_into(vit: VisionTransformer | eva.Eva, state_dict: dict[str, Tensor]) -> None:
    """Load weights into a timm ViT, strictly; other layouts that timm knows are converted first.

    Position embeddings of another image size are resampled to the model's grid.

    Raises:
        CheckpointError: a weight is missing, left over, misshapen or not finite; the model is unchanged.
    """
    _check_patch_size(vit, state_dict)
    flexible = "flexi" in model_label(vit)  # timm resizes FlexiViT's patches with another filter
    resampling: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if flexible else {}
    try:
        if isinstance(vit, eva.Eva):
            state = eva.checkpoint_filter_fn(dict(state_dict), vit)
        else:
            state = checkpoint_filter_fn(dict(state_dict), vit, adapt_layer_scale=True, **resampling)
    except (KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"The checkpoint does not fit {model_label(vit)}: {error}.{_sizes(vit, state_dict)}"
        ) from error
    if "siglip" in model_label(vit) and getattr(vit, "attn_pool", None) is None:
        # timm's average-pooled SigLIP models share the files of the attention-pooled ones.
        state = {name: value for name, value in state.items() if not name.startswith("attn_pool.")}
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
    for name, axis in (*_CLASSIFIERS, ("visual.head.proj.weight", 0), ("visual.proj", 1)):
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
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the weights file in it.")
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


_CHOOSE = (
    " Save the one that you mean alone, with its key for KEY: torch.save(torch.load(FILE, weights_only=True)[KEY], "
    "ANOTHER_FILE)."
)


def _check_one_set(path: Path, content: dict[Any, Any], key: str) -> None:
    """Refuse a second set of the same weights under a key that timm does not know, such as "ema" or "teacher"."""
    chosen = set(_weights(content[key]))
    known = {"state_dict_ema", "model_ema", "state_dict", "model"}
    for other, value in content.items():
        if other == key or (other in known and key in known) or not isinstance(value, dict):
            continue
        names = set(_weights(value))
        if names and 2 * len(names & chosen) >= min(len(names), len(chosen)):
            raise CheckpointError(f"{path} holds weights as {_several([key, str(other)])}.{_CHOOSE}")


def _weights(content: dict[Any, Any]) -> dict[str, Tensor]:
    """The tensors by name in what a checkpoint has under a key, however deep it is wrapped."""
    while True:
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    return _without_prefix({name: value for name, value in content.items() if _is_weight(name, value)})


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _several(keys: list[str]) -> str:
    shown = [repr(key) for key in keys[: _MOST_SHOWN + 2]]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


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


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        _check_unpacked(path)
        # Training scripts often put their arguments beside the weights; a Namespace only holds values.
        # PyTorch warns about pickles that it has not written; what it cannot read is an error anyway.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
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


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def _check_patch_size(vit: VisionTransformer | eva.Eva, state: dict[str, Tensor]) -> None:
    """Refuse patches of another size, which timm would resample to something that was never trained."""
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
