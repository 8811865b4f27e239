"""Places of the heads in the grid: layers down, heads across, means at the ends, or sorted."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

Within = Literal["each layer", "all layers"]


@dataclass(frozen=True)
class Arrangement:
    """Traits of a `HeadGrid` that set the order of its maps; see there."""

    order: list[int]
    across: int
    names: list[str]
    columns: list[str]
    split: list[int]
    marks: list[str] = field(default_factory=list)

    @property
    def traits(self) -> dict[str, Any]:
        """The traits by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class HeadPlaces:
    """The rows and columns of all heads: the layers, the pooling head if there is one, and the means.

    Attributes:
        n_layers: Number of blocks.
        n_heads: Heads of a block.
        pool_heads: Heads of a head that pools by attention; 0 for none.
    """

    n_layers: int
    n_heads: int
    pool_heads: int = 0

    @property
    def pool(self) -> int:
        """Row of the pooling head; -1 for none."""
        return self.n_layers if self.pool_heads else -1

    @property
    def mean_layer(self) -> int:
        """Row of the means over all blocks."""
        return self.n_layers + bool(self.pool_heads)

    @property
    def mean_head(self) -> int:
        """Column of the means over the heads of a layer."""
        return max(self.n_heads, self.pool_heads)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns, with the means."""
        return self.mean_layer + 1, self.mean_head + 1

    def heads_of(self, layer: int) -> int:
        """Number of heads of a row."""
        return self.pool_heads if layer == self.pool else self.n_heads

    def nearest(self, layer: int, head: int) -> tuple[int, int]:
        """This head, or the last one of its row if it has no head of this number."""
        return layer, head if head == self.mean_head else min(head, self.heads_of(layer) - 1)

    def words(self, layer: int, head: int) -> str:
        """A head or a mean, in words."""
        if layer == self.mean_layer:
            return "mean over layers and heads" if head == self.mean_head else f"mean over layers, head {head}"
        row = "pool" if layer == self.pool else f"layer {layer}"
        return f"{row}, mean over heads" if head == self.mean_head else f"{row}, head {head}"

    def arranged(
        self,
        values: Float[np.ndarray, "layer head"] | None = None,
        within: Within = "each layer",
        *,
        highest_first: bool = True,
    ) -> Arrangement:
        """An order of all maps.

        Args:
            values: Values to sort by, one for each head of the blocks and, in a last row, of the pooling head, NaN if
                there is none; None for layers down and heads across.
            within: Sort the heads of "each layer", or of "all layers" together.
            highest_first: The highest value comes first, otherwise the lowest; NaN is always last.
        """
        if values is None:
            rows = [self._row(layer, list(range(self.heads_of(layer)))) for layer in range(self.mean_layer + 1)]
            columns = [*map(str, range(self.mean_head)), "mean"]
            return self._of(rows, [*self._names, "mean"], columns, self.mean_head)
        marks = [self._mark(layer, head) for layer in range(self.shape[0]) for head in range(self.shape[1])]
        keys = np.where(np.isnan(values), np.inf, -values if highest_first else values)
        if within == "each layer":
            ranked = [np.argsort(keys[layer], kind="stable") for layer in range(self.mean_layer)]
            rows = [
                self._row(layer, [head for head in ranked[layer].tolist() if head < self.heads_of(layer)])
                for layer in range(self.mean_layer)
            ]
            rows.append(self._row(self.mean_layer, []))
            columns = [*(f"{place + 1}." for place in range(self.mean_head)), "mean"]
            return self._of(rows, [*self._names, "mean"], columns, self.mean_head, marks)
        flat = np.argsort(keys[: self.n_layers, : self.n_heads], axis=None, kind="stable")
        cells = [self._number(*divmod(int(cell), self.n_heads)) for cell in flat]
        rows = [cells[first : first + self.n_heads] for first in range(0, len(cells), self.n_heads)]
        names = [f"{first * self.n_heads + 1}." for first in range(len(rows))]
        if self.pool_heads:
            rows.append([self._number(self.pool, head) for head in range(self.pool_heads)])
            names.append("pool")
        rows.append([self._number(self.mean_layer, self.mean_head)])
        return self._of(rows, [*names, "mean"], [""] * self.mean_head, 0, marks)

    @property
    def _names(self) -> list[str]:
        return [*map(str, range(self.n_layers)), *(["pool"] if self.pool_heads else [])]

    def _number(self, layer: int, head: int) -> int:
        return layer * self.shape[1] + head

    def _mark(self, layer: int, head: int) -> str:
        if self.mean_layer == layer or self.mean_head == head:
            return ""
        return f"pool {head}" if layer == self.pool else f"{layer}.{head}"

    def _row(self, layer: int, heads: list[int]) -> list[int]:
        """Numbers of the maps of a row: the heads, empty places, and the mean at the end."""
        empty = [-1] * (self.mean_head - len(heads))
        return [*(self._number(layer, head) for head in heads), *empty, self._number(layer, self.mean_head)]

    def _of(
        self, rows: list[list[int]], names: list[str], columns: list[str], mean: int, marks: list[str] | None = None
    ) -> Arrangement:
        across = len(columns)
        order = [number for row in rows for number in [*row, *[-1] * (across - len(row))]]
        return Arrangement(order, across, names, columns, [len(rows) - 1, mean], marks or [])
