"""Checks the shapes and formats of arrays that the package's signatures promise, while tests run, and nothing else.

Every function and dataclass of the package whose hints hold a shape is checked when it returns: a function's own
refusal of wrong input comes first, as users see it. All others stay as they are, and a call with the types and sizes of
an earlier one is not checked again; jaxtyping's own hook, which does both, doubles the time of the tests.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any, TypeVar, get_args, get_origin

import numpy as np
import torch
from beartype.door import is_bearable
from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


class ShapeError(AssertionError):
    """An array is not what the hint of a parameter, result or field says."""


def check_package(package: str) -> None:
    """Check the shapes of a package in all modules that are imported from now on."""
    if package in sys.modules:
        raise RuntimeError(f"{package} is imported already: its shapes could not be checked")
    sys.meta_path.insert(0, _Finder(package))


def check_shapes(function: F) -> F:
    """A function that checks its arguments and result when it returns; the same one where no hint holds a shape."""
    hints = _shapes(inspect.get_annotations(function))
    if not hints:
        return function
    signature = inspect.signature(function)
    seen: set[Any] = set()

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = function(*args, **kwargs)
        if torch.compiler.is_compiling():  # arrays are only traced, and checks cannot be
            return result
        form = _form((args, kwargs, result))
        if form not in seen:
            _check(function, hints, signature.bind(*args, **kwargs).arguments | {"return": result})
            seen.add(form)
        return result

    return checked  # type: ignore[return-value]


def check_fields(kind: C) -> C:
    """A dataclass that checks its fields when it is made; the same class where no field's hint holds a shape."""
    hints = _shapes(inspect.get_annotations(kind)) if is_dataclass(kind) else {}
    if hints:
        make = kind.__init__  # type: ignore[misc]

        @functools.wraps(make)
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            make(self, *args, **kwargs)
            _check(kind, hints, vars(self))

        kind.__init__ = checked  # type: ignore[misc]
    return kind


def _check(where: Any, hints: dict[str, Any], values: dict[str, Any]) -> None:
    __tracebackhide__ = True
    with jaxtyped("context"):  # names of axes mean the same number in all of them
        for name, hint in hints.items():
            if name in values and _holds_array(values[name]) and not is_bearable(values[name], hint):
                shown = {other: _described(values[other]) for other in hints if other in values}
                raise ShapeError(f"{where.__module__}.{where.__qualname__}: {name} is not {hint}. Given: {shown}")


def _form(value: Any) -> Any:
    """What alone decides whether a value fits a hint; a form that did once is not checked again."""
    if isinstance(value, (Tensor, np.ndarray)):
        return type(value), value.dtype, tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return type(value), *map(_form, value)
    if isinstance(value, dict):
        return type(value), *((key, _form(held)) for key, held in value.items())
    return type(value)


def _holds_array(value: Any) -> bool:
    """Whether there is a shape to check; other types are left to mypy and to the package's own refusals."""
    if isinstance(value, (list, tuple, dict)):
        return any(map(_holds_array, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (Tensor, np.ndarray))


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {[_described(element) for element in value[:3]]}"
    return f"{type(value).__name__} {value!r}"[:80]


def _shapes(hints: dict[str, Any]) -> dict[str, Any]:
    return {name: hint for name, hint in hints.items() if _holds_shape(hint)}


def _holds_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return get_origin(hint) is not Callable and any(map(_holds_shape, get_args(hint)))


class _Decorate(ast.NodeVisitor):
    """Puts the two decorators where they see the function itself, and the finished class."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        node.decorator_list.append(_decorator("check_shapes", node))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        node.decorator_list.insert(0, _decorator("check_fields", node))
        self.generic_visit(node)


def _decorator(name: str, place: ast.AST) -> ast.expr:
    found = ast.parse(f"__import__('helpers.shapes').shapes.{name}", mode="eval").body
    for part in ast.walk(found):
        ast.copy_location(part, place)
    return found


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled anew each time, so that no cache holds code with checks."""
        tree = ast.parse(self.get_data(self.path), self.path)
        _Decorate().visit(tree)
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
