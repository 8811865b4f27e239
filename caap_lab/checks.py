"""Checks of options that methods share."""

from collections.abc import Sequence
from numbers import Integral, Real

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse anything but one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={value!r} is not known; use one of {', '.join(known)}.")


def check_seed(seed: int) -> None:
    """Refuse a seed that torch does not take."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r} must be a whole number from 0 to 2**63 - 1.")


def check_share(name: str, value: float, zero: bool = True, one: bool = True) -> None:
    """Refuse anything but a number from 0 to 1; `zero` and `one` say whether the ends are allowed."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
        low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
        raise InputError(f"{name}={value!r} must be a number {low} and {high}.")


def first_block(model: HookedModel, start_layer: int) -> int:
    """The block that `start_layer` names; a negative number counts from the end, -1 being the last block.

    Raises:
        InputError: the model has no such block.
    """
    whole = isinstance(start_layer, Integral) and not isinstance(start_layer, bool)
    if not whole or not -model.n_layers <= start_layer < model.n_layers:
        raise InputError(
            f"start_layer={start_layer!r} must be a whole number from 0 to {model.n_layers - 1}, or from "
            f"-{model.n_layers} to -1 to count from the end."
        )
    return int(start_layer) % model.n_layers
