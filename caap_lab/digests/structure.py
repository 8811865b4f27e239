"""What determines a model's outputs besides its weights, as text: classes, settings, and replaced functions.

The text is the same in every process for the same model, so a hash of it can be stored in files. Code of installed
packages counts by name; the user's own code, which may change under the same name, is read.
"""

import dataclasses
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.digests.hashing import hex_digest
from caap_lab.digests.python_code import (
    UNFILLED,
    attributes_of,
    comes_from_library,
    enclosed_values,
    is_found_by_name,
    recorded_module,
    values_read,
)

_WITHOUT_EFFECT = frozenset(
    {
        # of every module; TransformerLens sets a name on all of them
        *vars(nn.Module()),
        "name",
        # how an implementation computes, and not what
        *("fused_attn", "grad_checkpointing", "inplace", "_compiled_call_impl"),
        # how the model was built and where its weights came from
        *("pretrained_cfg", "default_cfg", "pretrained_model_args", "_model_args", "_traits", "feature_info"),
        *("weight_init_mode", "fix_init"),
    }
)
_STEPS = ("forward", "embed", "run_block", "unembed")
"""Methods of the hooked model itself, whose other attributes do not affect the computation of timm's model."""


def read_structure(model: nn.Module, parts: Sequence[tuple[str, nn.Module]]) -> tuple[str, list[Tensor]]:
    """The text, and the tensors outside the state dict to which it refers by number: attributes and unsaved buffers.

    Args:
        model: The model.
        parts: Its modules with their names, as `caap_lab.modules.named_modules` lists them.
    """
    reader = _Reader(parts)
    lines = [] if comes_from_library(type(model)) else [reader.type(type(model))]
    lines += [f"{name} = {reader.text(vars(model)[name])}" for name in _STEPS if name in vars(model)]
    for name, module in parts:
        if module is not model and not _only_points(module):
            lines.append(f"{name}: {reader.module(module)}")
    return "\n".join(lines), reader.tensors


def read_modules(modules: Sequence[nn.Module]) -> tuple[str, list[Tensor]]:
    """As `read_structure`, for some modules and all inside them, which need not be a model."""
    parts = [(f"{place} {name}", part) for place, one in enumerate(modules) for name, part in one.named_modules()]
    reader = _Reader(parts)
    return "\n".join(f"{name}: {reader.module(part)}" for name, part in parts), reader.tensors


def is_replaced(module: nn.Module, method: str = "forward") -> bool:
    """True if a module's own method was replaced by a function."""
    return vars(module).get(method) is not None and not _is_own_method(module, method, vars(module)[method])


def _only_points(module: nn.Module) -> bool:
    """True for hook points and the modules of this package that hold them."""
    return isinstance(module, HookPoint) or (
        type(module).__module__.startswith("caap_lab.models.") and type(module).__name__.endswith("Points")
    )


class _Reader:
    """Turns modules and values into text, and collects tensors."""

    def __init__(self, parts: Sequence[tuple[str, nn.Module]]) -> None:
        self.tensors: list[Tensor] = []
        self._known = {id(module): f"<{name}>" for name, module in parts}
        self._kept: list[Any] = []
        self._classes: dict[type, str] = {}

    def module(self, module: nn.Module) -> str:
        """Class, settings, and buffers that are not in the state dict."""
        found = {}
        for name, value in vars(module).items():
            if value is not None and name not in _WITHOUT_EFFECT and not _is_own_method(module, name, value):
                found[name] = self.text(value)
        for name in sorted(module._non_persistent_buffers_set):
            if module._buffers.get(name) is not None:
                found[name] = self.text(module._buffers[name])
        return f"{self.type(type(module))} {sorted(found.items())}"

    def text(self, value: Any) -> str:
        """A value as text, by its content and never by its address."""
        if isinstance(value, Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, range, slice, torch.dtype)):
            return repr(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return f"tensor {len(self.tensors)}"
        if isinstance(value, (np.ndarray, np.generic)):
            return f"{value.dtype} {value.shape} {hex_digest(value.tobytes(), size=8)}"
        if isinstance(value, type):
            return self.type(value)
        if isinstance(value, MethodType):
            return f"{self.text(value.__func__)} of {self.text(value.__self__)}"
        if isinstance(value, BuiltinFunctionType):
            return value.__qualname__
        if id(value) not in self._known:
            self._known[id(value)] = f"<the same, {type(value).__qualname__}>"  # if it contains itself
            self._known[id(value)] = self._compound(value)
            self._kept.append(value)  # so that its id is not reused
        return self._known[id(value)]

    def _compound(self, value: Any) -> str:
        """A value that may contain other values, possibly itself, as text."""
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self.text, value))}]"
        if isinstance(value, Mapping):
            return f"{{{', '.join(sorted(f'{key!r}: {self.text(v)}' for key, v in value.items()))}}}"
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(map(self.text, value)))}}}"
        if isinstance(value, nn.Module):  # in a list or a function, where torch does not register it
            self.tensors += [*value.parameters(), *value.buffers()]
            return " / ".join(self.module(part) for part in value.modules())
        if isinstance(value, partial):
            return f"partial {self.text(value.func)} {self.text(value.args)} {self.text(value.keywords)}"
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, _WRAPPERS):
            return self.text([value.fget, value.fset] if isinstance(value, property) else value.__func__)
        if _has_own_content(value):
            return f"{self.type(type(value))} {self.text(attributes_of(value))}"
        return self.type(type(value))

    def function(self, function: Any) -> str:
        """A function of an installed package by name, any other by its code and the values that the code reads."""
        name = f"{recorded_module(str(function.__module__))}.{function.__qualname__}"
        if comes_from_library(function) and is_found_by_name(function):
            return name
        enclosed = [value for value in enclosed_values(function) if value is not UNFILLED]
        settings = {name: value for name, value in values_read(function).items() if _is_setting(value)}
        defaults = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
        return f"{name} {_code(function.__code__)} {self.text([defaults, enclosed, settings])}"

    def type(self, kind: type) -> str:
        """A class of an installed package by name, any other also by the code of its methods."""
        if kind not in self._classes:
            self._classes[kind] = (
                f"{recorded_module(kind.__module__)}.{kind.__qualname__}"  # known before its methods mention it
            )
            if not comes_from_library(kind):
                parts = {k: v for k, v in vars(kind).items() if not k.startswith("__") or isinstance(v, FunctionType)}
                read = {k: self.text(v) for k, v in parts.items() if isinstance(v, FunctionType) or _is_setting(v)}
                self._classes[kind] += f" {sorted(read.items())} {[self.type(base) for base in kind.__bases__]}"
            elif isinstance(forward := getattr(kind, "forward", None), FunctionType) and not is_found_by_name(forward):
                self._classes[kind] += f" forward = {self.function(forward)}"  # it was replaced
        return self._classes[kind]


def _is_own_method(module: nn.Module, name: str, value: Any) -> bool:
    """True for a module's own method that was set on the module again, which changes nothing."""
    own = getattr(type(module), name, None)
    return isinstance(value, MethodType) and value.__self__ is module and value.__func__ is own


_PLAIN = (bool, int, float, str, tuple, list, set, frozenset, Mapping, Tensor, np.ndarray)
_WRAPPERS = (property, staticmethod, classmethod)
_CALLED = (FunctionType, MethodType, BuiltinFunctionType, partial)


def _is_setting(value: Any) -> bool:
    """True for what code refers to by name and may be changed: values, functions, and objects of the user's own."""
    if isinstance(value, type):
        return not comes_from_library(value)
    if value is os.environ:  # of all that it holds, a model reads little or nothing
        return False
    return isinstance(value, (*_PLAIN, *_WRAPPERS, *_CALLED, nn.Module)) or _has_own_content(value)


def _has_own_content(value: Any) -> bool:
    """True for objects that are what their attributes say: of the user's own classes, and of plain holders."""
    if isinstance(value, (ModuleType, type)):
        return False
    plain = dataclasses.is_dataclass(value) or isinstance(value, (SimpleNamespace, Namespace))
    return plain or not comes_from_library(type(value))


def _code(code: CodeType) -> str:
    """Hash of a function's code, without file and line numbers."""
    chunks: list[str | bytes] = [code.co_code]
    for constant in code.co_consts:
        plain = sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
        chunks.append(_code(constant) if isinstance(constant, CodeType) else repr(plain))
    return hex_digest(*chunks, repr(code.co_names), size=8)
