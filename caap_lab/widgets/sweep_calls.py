"""The Python calls that compute what the layer sweep shows."""

from collections.abc import Mapping, Sequence
from typing import Any


def sweep_calls(call: str, target: str, settings: Mapping[str, Any], cutoffs: Sequence[int]) -> str:
    """The call for the map, and the call for the curve over cutoffs.

    Args:
        call: The Python expression of the image.
        target: The Python expression of the target.
        settings: CAAP's options.
        cutoffs: Cutoffs of the curve; none if the model or context has no sweep.
    """
    options = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    lines = [f"m = cl.caap(model, {call}, target={target}, {options})"]
    if cutoffs:
        rest = ", ".join(f"{name}={value!r}" for name, value in settings.items() if name != "cutoff")
        lines.append(f"cl.sweep_cutoffs(model, [{call}], {target}, cutoffs={list(cutoffs)}, {rest})")
    return "\n".join(lines)
