"""Facts about Python functions and classes that hashes of code are made from: what is installed, and what is read."""

import functools
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

_LIBRARIES = (
    Path(__file__).parents[1].resolve(),
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
UNFILLED = object()
"""Stands for a variable of an enclosing function that has no value yet."""


@functools.cache
def lies_in_library(file: str) -> bool:
    """True for files of Python, of installed packages and of caap_lab, which count by name and not by content."""
    path = Path(file).resolve()
    folders = {*Path(file).parts, *path.parts}
    return not folders.isdisjoint({"site-packages", "dist-packages"}) or any(
        path.is_relative_to(library) for library in _LIBRARIES
    )


def comes_from_library(thing: Any) -> bool:
    """True if the top package of a class or function is Python's, an installed one or caap_lab."""
    package = str(getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    if package == "__main__":
        return False
    if package == "caap_lab" or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and lies_in_library(file)


def is_found_by_name(function: Any) -> bool:
    """True if a function is what its module holds under its name."""
    found: Any = sys.modules.get(function.__module__)
    for word in function.__qualname__.split("."):
        found = getattr(found, word, None)
    return found is function


_FIRST_NAMES = {
    "caap_lab.models.vit": "caap_lab.hooked.model",
    "caap_lab.models": "caap_lab.hooked",
    "caap_lab.engine": "caap_lab.context",
    "caap_lab.activations.patch": "caap_lab.patching.patch",
    "caap_lab.activations.shards": "caap_lab.store.store",
    "caap_lab.activations.run_patched": "caap_lab.patching.run",
    "caap_lab.activations.store": "caap_lab.store.store",
    "caap_lab.activations.sweep": "caap_lab.patching.sweep",
    "caap_lab.activations.sweep_result": "caap_lab.patching.sweep",
    "caap_lab.bench.benchmark": "caap_lab.bench.run",
    "caap_lab.diagnostics.region_result": "caap_lab.diagnostics.attention_regions",
}
"""What modules and packages of caap_lab were called when hashes first named them; inner ones stand before outer ones.
Whoever moves a public class or function adds its module."""


def recorded_module(module: str) -> str:
    """The name under which hashes know a module, which stays as it first was wherever the module is moved."""
    for name, first in _FIRST_NAMES.items():
        if module == name or module.startswith(f"{name}."):
            return first + module.removeprefix(name)
    return module


def enclosed_values(function: FunctionType) -> Iterator[Any]:
    """Values of the enclosing functions' variables that a function uses, in order; `UNFILLED` where there is none."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield UNFILLED


def values_read(function: FunctionType) -> dict[str, Any]:
    """Values that a function looks up outside itself by name, those of functions within it included.

    What it reads from the user's own modules has the module's name in front: "settings" and "settings.scale".
    """
    names, found, met = _names_read(function.__code__), {}, set()

    def read(holder: dict[str, Any], prefix: str) -> None:
        for name in sorted(names & holder.keys()):
            value = found[prefix + name] = holder[name]
            if isinstance(value, ModuleType) and is_own_module(value) and id(value) not in met:
                met.add(id(value))
                read(vars(value), f"{prefix}{name}.")

    read(function.__globals__, "")
    return found


def attributes_of(value: Any) -> dict[str, Any]:
    """What an object holds, also under `__slots__`."""
    slots = (name for kind in type(value).__mro__ for name in _names(vars(kind).get("__slots__", ())))
    held = {name: getattr(value, name) for name in slots if name != "__dict__" and hasattr(value, name)}
    return dict(getattr(value, "__dict__", {})) | held


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def is_own_module(module: ModuleType) -> bool:
    """True for a module of the user's, which has a file or folder and is not installed."""
    places = [file for file in (getattr(module, "__file__", None), *getattr(module, "__path__", ())) if file]
    return bool(places) and not any(map(lies_in_library, places))


def _names_read(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names_read, inner))
