"""Effects of a trace at a glance: small maps of patches, prefix tokens and heads, one row per layer."""

from typing import Any

import numpy as np
from jaxtyping import Float

from caap_lab.activations.token_maps import numbered
from caap_lab.models.vit import HookedViT
from caap_lab.plots.maps import colour_table
from caap_lab.plots.style import SIGNED_COLOUR_MAP
from caap_lab.widgets.board import Ends
from caap_lab.widgets.effects import effect_limits, effect_tiles, effect_words, limits_words
from caap_lab.widgets.head_grid import HeadGrid, set_all

CELL, LEFT, TOP = 36, 72, 20
"""Width of a cell in pixels, and the space for labels of rows and columns."""
LARGEST = 560
"""Height of a grid in pixels."""


class TraceGrids:
    """The three grids.

    Attributes:
        layers: The patches of each layer as a small map; its chosen row is the layer that is shown large.
        prefix: One cell per prefix token.
        heads: One cell per head.
    """

    def __init__(self, model: HookedViT) -> None:
        spec = model.spec
        self._prefix_names = numbered(spec.prefix)
        every: dict[str, Any] = {"layers": spec.n_layers, "table": colour_table(SIGNED_COLOUR_MAP).tobytes()}
        every |= {"height": min(LARGEST, TOP + CELL * spec.n_layers), "zooms": False}
        apart: dict[str, Any] = {"chosen": [-1, -1], **every}
        size: dict[str, Any] = {"rows": spec.grid[0], "cols": spec.grid[1], **every}
        prefix: dict[str, Any] = {"heads": max(1, spec.n_prefix), "columns": self._prefix_names}
        self.layers = HeadGrid(heads=1, columns=["map"], label="Patches by layer", width=_width(1), **size)
        self.prefix = HeadGrid(label="Prefix tokens by layer", width=_width(len(spec.prefix)), **prefix, **apart)
        self.heads = HeadGrid(heads=spec.n_heads, label="Heads by layer", width=_width(spec.n_heads), **apart)

    @property
    def shown(self) -> list[HeadGrid]:
        """The grids that the model has."""
        return [self.layers, *([self.prefix] if self._prefix_names else []), self.heads]

    def draw_tokens(self, effects: Float[np.ndarray, "layer token"], limits: Ends, direction: str) -> None:
        """Draw the effects of tokens; NaN if they are not known yet.

        Args:
            effects: Effects of prefix tokens and patches.
            limits: Ends of the colours of patches.
            direction: Direction of the trace.
        """
        count = len(self._prefix_names)
        prefix, patches = effects[:, :count], effects[:, count:]
        tips = [f"patches of layer {place}" for place in range(len(effects))]
        set_all(self.layers, {"tiles": effect_tiles(patches, limits), "tips": tips, "caption": "layer"})
        if not count:
            return
        ends = effect_limits(prefix, direction)
        tips = [
            f"layer {place}, {name}: {effect_words(value)}"
            for place, values in enumerate(prefix)
            for name, value in zip(self._prefix_names, values, strict=True)
        ]
        set_all(self.prefix, {"tiles": effect_tiles(prefix, ends), "tips": tips, "caption": "prefix tokens"})

    def draw_heads(self, effects: Float[np.ndarray, "layer head"], known: bool, direction: str) -> None:
        """Draw the effects of heads; NaN if they are not known yet.

        Args:
            effects: The effects.
            known: True if they are computed.
            direction: Direction of the trace.
        """
        limits = effect_limits(effects, direction)
        tips = [
            f"layer {place}, head {head}: {effect_words(value)}"
            for place, values in enumerate(effects)
            for head, value in enumerate(values)
        ]
        caption = f"heads (z): colours {limits_words(limits)}" if known else "heads (z): computing"
        set_all(self.heads, {"tiles": effect_tiles(effects, limits), "tips": tips, "caption": caption})


def _width(columns: int) -> int:
    """Width of a grid that is limited by its height, so cells have one size in all grids and layers are aligned."""
    return LEFT + CELL * max(1, columns)
