"""Signatures that show all options: where a function passes options on, help and completion still name each of them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Left:
    """Shown as the default of an option that is decided elsewhere when it is left out."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shows_options(
    *sources: Callable[..., Any] | Mapping[str, Any], otherwise: str = "..."
) -> Callable[[_Function], _Function]:
    """Let the signature of a function list the options of its `**options: Unpack[...]` one by one.

    The function itself stays as it is, and so does what type checkers see.

    Args:
        *sources: Functions that the options go on to, whose parameters give the defaults that are shown; or defaults.
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
