"""The type checker of the test run: it checks arrays' shapes and formats, and nothing else.

Tests pass wrong types on purpose, to see what the package says of them; a checker of all types would get there first.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import beartype

F = TypeVar("F", bound=Callable[..., Any])


def check_shapes(function: F) -> F:
    """Check those parameters and results of a function whose hints hold a shape, such as Float[Tensor, "batch"]."""
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: hint for name, hint in hints.items() if _holds_shape(hint)}
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    return "jaxtyping" in repr(hint) or "jaxtyping" in str(getattr(hint, "__module__", ""))
