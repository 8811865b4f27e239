"""Maps of a query's attention in every head, and in means over heads, over layers and over both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from caap_lab.plots.maps import ROBUST
from caap_lab.widgets.head_grid import Scale, tile_bytes
from caap_lab.widgets.head_places import HeadPlaces

Values = Float[np.ndarray, "layer head"]
_TOGETHER: dict[Scale, tuple[int, ...] | None] = {"each head": None, "each layer": (1,), "all heads": (0, 1)}


def with_means(
    weights: Float[Tensor, "layer head token"], pool: Float[Tensor, "pool_head token"] | None, places: HeadPlaces
) -> Float[np.ndarray, "row column token"]:
    """The attention of a query in each head of the grid, NaN if there is no such head.

    Args:
        weights: The query's attention in the blocks.
        pool: Attention of the pooling head, which has its own queries.
        places: Places of the heads.
    """
    rows, columns = places.shape
    table = np.full((rows, columns, weights.shape[2]), np.nan, dtype=np.float32)
    of_blocks = weights.float().numpy()
    table[: places.n_layers, : places.n_heads] = of_blocks
    table[: places.n_layers, places.mean_head] = of_blocks.mean(axis=1)
    if pool is not None:
        of_pool = pool.float().numpy()
        table[places.pool, : len(of_pool)] = of_pool
        table[places.pool, places.mean_head] = of_pool.mean(axis=0)
    table[places.mean_layer, : places.n_heads] = of_blocks.mean(axis=0)
    table[places.mean_layer, places.mean_head] = of_blocks.mean(axis=(0, 1))
    return table


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The maps of all heads and means for one query.

    Attributes:
        weights: The query's attention to all tokens, as returned by `with_means`.
        grid: Rows and columns of patches.
    """

    weights: Float[np.ndarray, "row column token"]
    grid: tuple[int, int]

    @property
    def patches(self) -> Float[np.ndarray, "row column patch"]:
        """The attention to patches."""
        return self.weights[..., -self.grid[0] * self.grid[1] :]

    @property
    def maps(self) -> Float[np.ndarray, "row column height width"]:
        """The attention to patches on the grid of patches."""
        return self.patches.reshape(*self.weights.shape[:2], *self.grid)

    def ends(self, scale: Scale) -> dict[str, Values]:
        """The value at the end of each map's colours, for the full and the robust range; the colours start at 0.

        Args:
            scale: Which maps share their colours.
        """
        full = self.patches.max(axis=2)
        robust = np.percentile(self.patches, ROBUST[1], axis=2).astype(full.dtype)
        return {"full": _shared(full, scale), "robust": _shared(np.where(robust > 0, robust, full), scale)}

    def traits(self) -> dict[str, Any]:
        """Traits for a `HeadGrid`."""
        robust = self.ends("each head")["robust"]
        return {**tile_bytes(self.maps), "robust_highs": robust.astype("<f4").tobytes()}


def _shared(highs: Values, scale: Scale) -> Values:
    axes = _TOGETHER[scale]
    return highs if axes is None else np.broadcast_to(np.nanmax(highs, axis=axes, keepdims=True), highs.shape)
