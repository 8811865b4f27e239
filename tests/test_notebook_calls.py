"""Calls in the notebooks fit the package: every name exists, and every option is one of the function's."""

import ast
import inspect
from pathlib import Path
from typing import Any

import nbformat
import pytest

import caap_lab as cl

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_of(path: Path) -> str:
    """All code cells, without the lines that are IPython's alone."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def public(node: ast.expr) -> Any:
    """What `cl.name` or `cl.name.inner` is; None for other expressions.

    Raises:
        AttributeError: there is no such name.
    """
    if isinstance(node, ast.Name) and node.id == "cl":
        return cl
    if isinstance(node, ast.Attribute):
        owner = public(node.value)
        return None if owner is None else getattr(owner, node.attr)
    return None


def check_calls(code: str) -> int:
    """Bind every call of a public name to its signature; gives how many there are."""
    count = 0
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            public(node)
        if not isinstance(node, ast.Call) or (called := public(node.func)) is None:
            continue
        starred = any(isinstance(given, ast.Starred) for given in node.args)
        signature = inspect.signature(called)
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        signature.bind_partial(*([] if starred else node.args), **keywords)
        count += 1
    return count


def test_calls_fit_the_package() -> None:
    assert sum(check_calls(code_of(path)) for path in NOTEBOOKS) > 100


def test_what_does_not_fit_is_found() -> None:
    with pytest.raises(AttributeError, match="capp"):
        check_calls("m = cl.capp(model, image)")
    with pytest.raises(TypeError, match="unexpected keyword argument 'cutof'"):
        check_calls("cl.caap(model, image, cutof=3)")
    with pytest.raises(AttributeError, match="explor"):
        check_calls("cl.widgets.explor(model)")
