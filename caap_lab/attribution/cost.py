"""The cost of a map: the number of passes of a method, from the model's size and the method's options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from caap_lab.models.base import HookedModel

BACKWARD = 2
"""Number of forward passes that a backward pass counts as."""


@dataclass(frozen=True)
class ModelSize:
    """The properties of an architecture that determine how many passes one map takes."""

    kind: str
    """"vit", "cnn", "mixer" or "black_box"."""
    image_size: tuple[int, int]
    """Pixels as (height, width)."""
    grid: tuple[int, int]
    """Cells of a map as (rows, columns)."""
    channels: int
    """Channels of the maps that Score-CAM and ViT-CX read: the width of a ViT, or the channels of the last maps."""

    @property
    def n_patches(self) -> int:
        """Number N of cells of a map."""
        return self.grid[0] * self.grid[1]

    @classmethod
    def of(cls, model: HookedModel) -> "ModelSize":
        """The size of a hooked model."""
        return cls(model.kind, model.image_size, model.grid, model.channels)


@dataclass(frozen=True)
class Passes:
    """Passes of one map for a given target. A pass with half of the tokens counts as half."""

    count: Callable[[ModelSize, Mapping[str, Any]], float] | None
    """(size of the model, all options) -> passes; None if not known."""
    text: str = ""
    """The number with the default options as text, with N for the number of patches. It is derived from `count` if that
    only depends on options."""

    @classmethod
    def of(cls, given: "float | str | Passes", defaults: Mapping[str, Any]) -> "Passes":
        """`Passes` from what a method declares: a number, a text for humans only, or `Passes` itself.

        Args:
            given: What the method declares.
            defaults: The defaults of its options, from which the text is derived.
        """
        if isinstance(given, Passes):
            return given if given.text or given.count is None else replace(given, text=_text(given, defaults))
        if isinstance(given, str):
            return cls(_constant(float(given)) if given.isdecimal() else None, given)
        return cls(_constant(given), f"{given:g}")


def _constant(passes: float) -> Callable[[ModelSize, Mapping[str, Any]], float]:
    return lambda size, options: passes


def _text(passes: Passes, defaults: Mapping[str, Any]) -> str:
    assert passes.count is not None
    no_size: Any = None  # a count that depends on the size fails here, because it needs a text
    return f"{passes.count(no_size, defaults):g}"
