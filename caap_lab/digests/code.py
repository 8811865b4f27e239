"""A hash of what a function computes: its code, its closure, and the user's own functions that it calls.

Results of a registered method are stored under this hash, so that a method that was changed and registered again never
gets the results of its older version. Installed libraries count by name: rows record the relevant versions.
"""

import enum
import functools
import logging
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caap_lab.digests.hashing import pieces_digest
from caap_lab.digests.python_code import (
    UNFILLED,
    attributes_of,
    comes_from_library,
    enclosed_values,
    is_found_by_name,
    lies_in_library,
    recorded_module,
    values_read,
)
from caap_lab.digests.tensors import raw_bytes
from caap_lab.errors import InputError

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
_SHOWN = (torch.dtype, torch.device, np.dtype, range, slice, enum.Enum, PurePath, re.Pattern, logging.Logger)
"""Types whose text contains all of their content, or that do not affect numbers."""


def code_digest(
    function: Callable[..., Any], what: str, *, identity: Callable[[Any], str | None] = lambda value: None
) -> str:
    """Hash of a callable, equal in every process of the same Python version.

    Args:
        function: A function, method, `functools.partial`, module or other callable object.
        what: Its name in messages.
        identity: Returns a text for objects with their own identity, such as a model's fingerprint, which represents
            all of their content. None for any other object.

    Raises:
        InputError: it depends on an object whose content cannot be hashed, such as an open file.
    """
    return pieces_digest(_Walk(what, identity).pieces(function))


class _Walk:
    """One walk over everything that a callable depends on; objects met before count by their number."""

    def __init__(self, what: str, identity: Callable[[Any], str | None]) -> None:
        self._what = what
        self._identity = identity
        self._met: dict[int, int] = {}
        self._alive: list[Any] = []  # the id of a deleted object could be reused

    def pieces(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
            return
        if id(value) in self._met:
            yield f"met {self._met[id(value)]}".encode()
            return
        self._met[id(value)] = len(self._met)
        self._alive.append(value)
        yield from self._parts(value)

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, types.ModuleType):
            yield from self._module(value)
        elif _is_installed(value):
            module = recorded_module(str(getattr(value, "__module__", "")))
            yield f"library {module}.{value.__qualname__}".encode()
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.MethodType):
            yield from self._all("method", value.__func__, value.__self__)
        elif isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, functools.partial):
            yield from self._all("partial", value.func, value.args, value.keywords)
        elif isinstance(value, property):
            yield from self._all("property", value.fget, value.fset, value.fdel)
        elif isinstance(value, (staticmethod, classmethod)):
            yield from self._all(type(value).__name__, value.__func__)
        elif isinstance(value, _SHOWN):
            yield f"{type(value).__name__} {value!r}".encode()
        elif isinstance(value, Tensor):
            yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
            yield raw_bytes(value).tobytes()
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield f"array {value.dtype} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, np.generic):
            yield f"number {value.dtype} {value!r}".encode()
        elif isinstance(value, (list, tuple)):
            yield from self._all(f"{type(value).__name__} {len(value)}", *value)
        elif isinstance(value, (set, frozenset)):
            yield f"{type(value).__name__} {len(value)}".encode()
            yield from sorted(b"".join(_Walk(self._what, self._identity).pieces(element)) for element in value)
        elif isinstance(value, Mapping):
            yield from self._all(
                f"{type(value).__name__} {len(value)}", *(part for item in value.items() for part in item)
            )
        elif isinstance(value, type):
            yield from self._class(value)
        else:
            yield from self._object(value)

    def _all(self, kind: str, *values: Any) -> Iterator[bytes]:
        yield kind.encode()
        for value in values:
            yield from self.pieces(value)

    def _function(self, function: types.FunctionType) -> Iterator[bytes]:
        cells = [None if value is UNFILLED else value for value in enclosed_values(function)]
        yield from self._all("function", function.__code__, function.__defaults__, function.__kwdefaults__, *cells)
        for name, value in values_read(function).items():
            yield from self._all(f"global {name}", value)

    def _code(self, code: types.CodeType) -> Iterator[bytes]:
        # Without file and line: a function that only moved is the same function.
        facts = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags)
        yield from self._all("code", *facts, code.co_argcount, code.co_kwonlyargcount, code.co_consts)

    def _module(self, module: types.ModuleType) -> Iterator[bytes]:
        yield f"module {recorded_module(module.__name__)}".encode()
        file = getattr(module, "__file__", None)
        if file is None or lies_in_library(file):
            return
        yield Path(file).read_bytes()
        for name in sorted(vars(module)):
            other = vars(module)[name]
            if isinstance(other, types.ModuleType):
                yield from self.pieces(other)

    def _class(self, found: type) -> Iterator[bytes]:
        yield from self._all(f"class {found.__qualname__}", *found.__bases__)
        for name, value in sorted(vars(found).items()):
            if name not in ("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__"):
                yield from self._all(f"attribute {name}", value)

    def _object(self, value: Any) -> Iterator[bytes]:
        yield from self._all("object", type(value), str(getattr(value, "__name__", "")))
        identity = self._identity(value)
        if identity is not None:
            yield identity.encode()
            return
        skipped: tuple[str, ...] = ()
        if isinstance(value, nn.Module):
            yield from self._all("state", dict(value.state_dict()))
            skipped = ("_parameters", "_buffers")
        state = {name: held for name, held in attributes_of(value).items() if name not in skipped}
        if not state and _is_installed(type(value)) and not callable(value):
            raise InputError(
                f"{self._what} depends on a {type(value).__name__}, whose content cannot be hashed, so results could "
                "not be stored under it: make what it needs an option, or a number, text, list or array."
            )
        yield from self._all("holding", state)


def _is_installed(value: Any) -> bool:
    """True for functions and classes of Python, of installed packages and of caap_lab."""
    if isinstance(value, types.FunctionType):
        file = value.__code__.co_filename
        if value.__closure__ and not _is_decorated_library_function(value):
            return False  # a library's code around the user's own values
        return file.startswith("<frozen") or lies_in_library(file)
    if isinstance(value, type):
        module = sys.modules.get(value.__module__)
        source: str | None = getattr(module, "__file__", None)
        return module is not None and module.__name__ != "__main__" and (source is None or lies_in_library(source))
    return isinstance(value, (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType))


def _is_decorated_library_function(function: types.FunctionType) -> bool:
    by_name = comes_from_library(function) and is_found_by_name(function)
    return by_name and function.__qualname__ != "libragrad"  # it has always counted by the code of its decorator
