"""Class names from any container with a clear order, as a tuple in the order of the model's scores."""

from collections.abc import Iterable, Mapping, Set
from numbers import Integral
from typing import Any

from caap_lab.errors import InputError


def ordered_names(names: Any) -> tuple[str, ...]:
    """Class names in the order of the classes.

    Args:
        names: A list, tuple, array, index or column of strings; a mapping from index to name ({0: "cat"} or {"0":
            "cat"}, also as a pandas Series); or from name to index ({"cat": 0}), as torchvision's `class_to_idx`.

    Raises:
        InputError: the container has no order, indices are missing or occur twice, or a name is not a string.
    """
    if hasattr(names, "index") and hasattr(names, "items") and hasattr(names, "to_dict"):  # pandas
        names = _by_number(names)
    elif isinstance(names, Mapping):
        names = _from_mapping(names)
    elif isinstance(names, Set) and not hasattr(names, "mapping"):  # the keys of a mapping are ordered
        raise InputError("Class names were given as a set, which has no order. Give a list that starts with class 0.")
    elif isinstance(names, (str, bytes)) or not isinstance(names, Iterable) or getattr(names, "ndim", 1) != 1:
        raise InputError(f"Class names must be a list of strings, not {type(names).__name__}.")
    found = tuple(names)
    wrong = [name for name in found if not isinstance(name, str)]
    if wrong:
        raise InputError(f"Class names must be a list of strings; {str(wrong[0])[:40]!r} is {type(wrong[0]).__name__}.")
    return tuple(str(name) for name in found)


def _by_number(series: Any) -> list[Any]:
    if getattr(series, "ndim", 1) != 1:
        raise InputError("Class names were given as a table. Give the column of names, starting with class 0.")
    pairs = list(series.items())
    if not all(_number(key) is not None for key, _ in pairs):
        raise InputError(
            "Class names were given with an index that does not number them. Give list(names), starting with class 0."
        )
    return _in_order([(_number(key), name) for key, name in pairs])


def _from_mapping(mapping: Mapping[Any, Any]) -> list[Any]:
    if all(_number(key) is not None for key in mapping) and all(isinstance(name, str) for name in mapping.values()):
        return _in_order([(_number(key), name) for key, name in mapping.items()])
    if all(_number(index) is not None and not isinstance(index, str) for index in mapping.values()):
        return _in_order([(_number(index), name) for name, index in mapping.items()])
    raise InputError('Class names were given as a mapping that is neither {0: "cat", ...} nor {"cat": 0, ...}.')


def _in_order(pairs: list[tuple[Any, Any]]) -> list[Any]:
    indices = sorted(index for index, _ in pairs)
    if indices != list(range(len(pairs))):
        strange = next((index for place, index in enumerate(indices) if index != place), None)
        raise InputError(
            f"Class names were given for {len(pairs)} indices that are not 0 to {len(pairs) - 1}, each once; see "
            f"{strange}."
        )
    return [name for _, name in sorted(pairs, key=lambda pair: pair[0])]


def _number(key: Any) -> int | None:
    if isinstance(key, str):
        return int(key) if key.isdecimal() else None
    return int(key) if isinstance(key, Integral) and not isinstance(key, bool) else None
