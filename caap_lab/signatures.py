"""Signatures that list all options of functions that pass them on, for help and completion."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Left:
    """Shown as the default of an option whose default is determined elsewhere."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shows_options(
    *sources: Callable[..., Any] | Mapping[str, Any], otherwise: str = "..."
) -> Callable[[_Function], _Function]:
    """A decorator that lists the options of a function's `**options: Unpack[...]` in its signature.

    The function itself does not change, and neither does its type for type checkers.

    Args:
        *sources: Functions to which the options are passed, whose parameters have the defaults to show; or defaults.
        otherwise: Shown as the default of an option that none of them has.
    """

    def show(function: _Function) -> _Function:
        signature = inspect.signature(function)
        *own, rest = signature.parameters.values()
        (options,) = get_args(rest.annotation)
        defaults = {name: value for source in reversed(sources) for name, value in _defaults(source).items()}
        taken = {parameter.name for parameter in own}
        named = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=defaults.get(name, _Left(otherwise))
            )
            for name, hint in get_type_hints(options).items()
            if name not in taken
        ]
        function.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
        return function

    return show


def _defaults(source: Callable[..., Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    parameters = inspect.signature(source).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
