"""Preparation of the model that a twin is made from: full precision, merged adapters, one device."""

import copy
from typing import Any

import torch
from torch import nn

from caap_lab.errors import InputError

_FULL = (torch.float32, torch.float64)


def check_weights(module: nn.Module) -> torch.dtype:
    """The number format of a model's weights.

    Raises:
        InputError: weights are quantised, in several formats, on several devices, or not loaded.
    """
    kind = type(module).__name__
    added = _added_by_adapters(module)
    tensors = [parameter for parameter in module.parameters() if id(parameter) not in added]
    devices, formats = {tensor.device for tensor in tensors}, {tensor.dtype for tensor in tensors}
    if any(device.type == "meta" for device in devices):
        raise InputError(f"Weights of this {kind} are not loaded (device 'meta'). Load it without offloading.")
    if len(devices) > 1:
        spread = ", ".join(sorted(map(str, devices)))
        raise InputError(f"This {kind} is spread over {spread}. Load it on one device.")
    odd = [dtype for dtype in formats if not dtype.is_floating_point or dtype.itemsize < 2]
    if odd:
        raise InputError(f"Weights of this {kind} are quantised ({odd[0]}). Load it in float32, float16 or bfloat16.")
    if len(formats) > 1:
        mixed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in formats))
        raise InputError(
            f"Weights of this {kind} are in several number formats ({mixed}). Convert them to one: model.float()."
        )
    return formats.pop()


def in_full_precision(module: nn.Module) -> nn.Module:
    """The model itself, or a float32 copy if its weights have lower precision."""
    if check_weights(module) in _FULL:
        return module
    copied = _with_exact_tables(copy.deepcopy(module).float())
    if hasattr(copied, "set_attn_implementation"):  # flash attention has no float32
        copied.set_attn_implementation("eager")
    return copied


def without_adapters(module: nn.Module) -> nn.Module:
    """The model itself, or a copy with merged adapters if it has any."""
    return _merged(copy.deepcopy(module)) if any(map(_is_adapter, module.modules())) else module


def _with_exact_tables(copied: Any) -> Any:
    """A copy with exact frequencies of rotary positions, which converting a model to half precision has rounded."""
    for part in copied.modules():
        if hasattr(part, "inv_freq") and hasattr(part, "base") and hasattr(part, "head_dim"):
            exponents = torch.arange(0, 1, 4 / part.head_dim, dtype=torch.float32, device=part.inv_freq.device)
            part.inv_freq = 1 / part.base**exponents
    return copied


def _added_by_adapters(module: nn.Module) -> set[int]:
    """Ids of the adapters' own parameters, without those of the layers that they wrap."""
    added: set[int] = set()
    for part in filter(_is_adapter, module.modules()):
        wrapped = getattr(part, "base_layer", None) or getattr(part, "original_module", None)
        own = set() if wrapped is None else set(map(id, wrapped.parameters()))
        added |= set(map(id, part.parameters())) - own
    return added


def _is_adapter(part: nn.Module) -> bool:
    return any(kind.__module__.split(".")[0] == "peft" for kind in type(part).__mro__)


def _merged(module: nn.Module) -> nn.Module:
    """Replace PEFT's layers by plain ones that compute the same: active adapters merged, disabled ones left out."""
    for name, part in list(module.named_modules()):
        adapter: Any = part
        if not _is_adapter(part) or not _stands(module, name):
            continue
        if hasattr(adapter, "modules_to_save"):  # a copy of a layer that was trained completely
            active = [] if adapter.disable_adapters else list(adapter.active_adapters)
            plain = adapter.modules_to_save[active[0]] if active else adapter.original_module
        elif hasattr(adapter, "merge") and hasattr(adapter, "get_base_layer"):
            merged, active = list(adapter.merged_adapters), list(adapter.active_adapters)
            if adapter.disable_adapters and merged:
                adapter.unmerge()
            waiting = [] if adapter.disable_adapters else [name for name in active if name not in merged]
            if waiting:
                adapter.merge(safe_merge=True, adapter_names=waiting)
            plain = adapter.get_base_layer()
        else:
            raise InputError(
                f"{name} is an adapter ({type(part).__name__}) that cannot be merged into a layer's weights, so the "
                "model has no twin."
            )
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, plain)
    return module


def _stands(module: nn.Module, name: str) -> bool:
    """False for submodules of a layer that has already been replaced."""
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return bool(name)
