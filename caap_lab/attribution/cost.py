"""What a map costs: the passes of a method as numbers, which follow from the model's size and the method's options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from caap_lab.models.base import HookedModel

BACKWARD = 2
"""Forward passes that a backward pass counts as."""


@dataclass(frozen=True)
class ModelSize:
    """What of an architecture decides how many passes one map takes."""

    kind: str
    """"vit", "cnn", "mixer" or "black_box"."""
    image_size: tuple[int, int]
    """Pixels as (height, width)."""
    grid: tuple[int, int]
    """Cells of a map as (rows, columns)."""
    channels: int
    """Of the maps that Score-CAM and ViT-CX read: the width of a ViT, or of the last maps of another model."""

    @property
    def n_patches(self) -> int:
        """Cells of a map, N."""
        return self.grid[0] * self.grid[1]

    @classmethod
    def of(cls, model: HookedModel) -> "ModelSize":
        """The size of a hooked model."""
        return cls(model.kind, model.image_size, model.grid, model.channels)


@dataclass(frozen=True)
class Passes:
    """Passes of one map for a given target. A pass with half of the tokens counts half."""

    count: Callable[[ModelSize, Mapping[str, Any]], float] | None
    """(size of the model, all options) -> passes; None where nobody has said how many."""
    text: str = ""
    """How the number reads with the default options, N being the number of patches. It follows from `count` where that
    reads options alone."""

    @classmethod
    def of(cls, given: "float | str | Passes", defaults: Mapping[str, Any]) -> "Passes":
        """Passes from what a method states: a number, a text for people alone, or both as `Passes`.

        Args:
            given: What the method states.
            defaults: Its options' default values, from which the text follows.
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
    no_size: Any = None  # a count that reads the size fails here, as it needs a text of its own
    return f"{passes.count(no_size, defaults):g}"
