"""Calls of public names in a piece of code fit the package."""

import ast
import inspect
from typing import Any

import caap_lab as cl


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
