"""Checks of arguments shared by many functions. Each error says what was wrong and what is expected."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from operator import index
from typing import Any

from caap_lab.errors import InputError


def is_whole(value: Any) -> bool:
    """True for a Python or NumPy integer, except True and False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """True for a Python or NumPy real number, except True and False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole_numbers(name: str, given: Any) -> list[int]:
    """One or several whole numbers as a list, without rounding other numbers.

    Raises:
        InputError: any other value.
    """
    try:
        several = isinstance(given, Iterable) and getattr(given, "ndim", 1) > 0
        numbers = list(given) if several else [given]
        if any(isinstance(number, bool) or "bool" in str(getattr(number, "dtype", "")) for number in numbers):
            raise TypeError("a mask of booleans would be read as the numbers 0 and 1")
        return [index(number) for number in numbers]
    except TypeError:
        raise InputError(f"{name}={given!r} must be a whole number, or several of them.") from None


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise InputError for anything but one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={value!r} is not known; use one of {', '.join(known)}.")


def check_count(name: str, value: int) -> None:
    """Raise InputError for anything but a whole number of at least 1."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")


def check_seed(seed: int, bits: int = 63) -> None:
    """Raise InputError for a seed that the generator does not accept; torch's accepts 63 bits, NumPy's older one 32."""
    if not is_whole(seed) or not 0 <= seed < 2**bits:
        raise InputError(f"seed={seed!r} must be a whole number from 0 to 2**{bits} - 1.")


def check_share(name: str, value: float, zero: bool = True, one: bool = True) -> None:
    """Raise InputError for anything but a number from 0 to 1; `zero` and `one` say whether the ends are allowed."""
    if not is_number(value) or not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
        low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
        raise InputError(f"{name}={value!r} must be a number {low} and {high}.")


def first_block(n_layers: int, start_layer: int) -> int:
    """The block number for `start_layer`; a negative number counts from the end, -1 being the last block.

    Args:
        n_layers: Number of blocks of the model.
        start_layer: The number that the user gave.

    Raises:
        InputError: the model has no such block.
    """
    if not is_whole(start_layer) or not -n_layers <= start_layer < n_layers:
        raise InputError(
            f"start_layer={start_layer!r} must be a whole number from 0 to {n_layers - 1}, or from -{n_layers} to -1 "
            "to count from the end."
        )
    return int(start_layer) % n_layers
