"""The order of heads in the grid: by their numbers, or sorted by one of their values."""

import ipywidgets
import pandas as pd

from caap_lab.widgets.head_places import Arrangement, HeadPlaces
from caap_lab.widgets.head_table import as_grid

NATURAL = "layer and head"


class HeadOrder:
    """The controls of the order.

    Attributes:
        by: The value to sort by: a column of `head_table`, or "layer and head".
        within: Whether heads are sorted within each layer, or over all layers.
        first: Which value comes first.
        controls: All of these controls.
    """

    def __init__(self) -> None:
        self.by = ipywidgets.Dropdown(options=[NATURAL], description="sort by")
        self.within = ipywidgets.Dropdown(options=["each layer", "all layers"], description="within")
        self.first = ipywidgets.Dropdown(options=["highest", "lowest"], description="first")
        self.controls = (self.by, self.within, self.first)

    @property
    def words(self) -> str:
        """The order in words, for the caption."""
        if self.by.value == NATURAL:
            return ""
        within = "within each layer" if self.within.value == "each layer" else "over all layers"
        return f" by {self.by.value}, {self.first.value} first, {within}"

    def offer(self, table: pd.DataFrame) -> None:
        """Offer the columns of a table; the choice is kept if it still exists."""
        options = (NATURAL, *table.columns[2:])
        if options == tuple(self.by.options):
            return
        chosen = self.by.value if self.by.value in options else NATURAL
        with self.by.hold_trait_notifications():
            self.by.options = options
            self.by.value = chosen

    def arranged(self, places: HeadPlaces, table: pd.DataFrame | None) -> Arrangement:
        """The order of all maps; by their numbers if there is no table yet."""
        if table is None or self.by.value not in table:
            return places.arranged()
        values = as_grid(table, self.by.value, places)
        return places.arranged(values, self.within.value, highest_first=self.first.value == "highest")

    def sorted_rows(self, table: pd.DataFrame, places: HeadPlaces) -> pd.DataFrame:
        """The rows of a table in the order in which the heads are shown."""
        numbers = [
            (places.pool if layer == "pool" else int(layer)) * places.shape[1] + head
            for layer, head in zip(table["layer"], table["head"], strict=True)
        ]
        rank = {number: place for place, number in enumerate(self.arranged(places, table).order)}
        rows = sorted(range(len(table)), key=lambda row: rank[numbers[row]])
        return table.iloc[rows].reset_index(drop=True)
