"""What the hooked model shows of itself: signatures, names in docstrings, and imports without circles."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import grimp
import pytest

import caap_lab
from caap_lab import HookedViT
from caap_lab.activations.record import record
from caap_lab.activations.run_patched import run_patched

ROOT = Path(caap_lab.__file__).parent


@pytest.mark.parametrize("function", [record, run_patched])
def test_methods_of_the_model_have_the_signatures_of_their_functions(function: Any) -> None:
    method = inspect.signature(getattr(HookedViT, function.__name__))
    own, *given = method.parameters.values()
    model, *expected = inspect.signature(function).parameters.values()
    assert (own.name, model.name) == ("self", "model")
    assert [(p.name, p.kind, p.default) for p in given] == [(p.name, p.kind, p.default) for p in expected]
    annotations = [str(p.annotation) for p in given] + [str(method.return_annotation)]
    as_they_are = [str(p.annotation) for p in expected] + [str(inspect.signature(function).return_annotation)]
    assert list(map(_without_modules, annotations)) == list(map(_without_modules, as_they_are))


def _without_modules(annotation: str) -> str:
    return re.sub(r"\b[a-z_]+\.|<class '|'>|[\"']", "", annotation)


def test_names_in_docstrings_exist() -> None:
    """`caap_lab.models.heads` and the like, wherever the package says them."""
    missing = []
    for path in sorted(ROOT.rglob("*.py")):
        for name in set(re.findall(r"`(caap_lab\.[\w.]+\w)`", path.read_text(encoding="utf-8"))):
            if not _exists(name):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing


def _exists(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_models_import_each_other_without_circles() -> None:
    """Imports inside functions too, which hide a circle and do not end it."""
    graph = grimp.build_graph("caap_lab", exclude_type_checking_imports=True, cache_dir=None)
    inside = {m for m in graph.modules if m.startswith("caap_lab.models.")}
    imports = {m: graph.find_modules_directly_imported_by(m) & inside for m in inside}
    while free := [m for m, found in imports.items() if not found]:
        imports = {m: found - set(free) for m, found in imports.items() if m not in free}
    assert not imports, "these modules import each other in a circle"
