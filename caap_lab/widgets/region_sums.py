"""Attention between regions: a chart over layers, and a table of the chosen layer."""

from typing import Literal

import ipywidgets
import numpy as np

from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.plots.attention import REGION_LABELS, REGION_STYLES
from caap_lab.plots.spans import SHARE, value_span
from caap_lab.widgets.attention_words import heads_words, on_any_ground, pool_table, regions_table
from caap_lab.widgets.curve_view import Curve, line, svg_dash
from caap_lab.widgets.head_places import HeadPlaces
from caap_lab.widgets.panel import group
from caap_lab.widgets.rows import beside

HIGHER = 1.05
"""Upper end of the chart, relative to its highest value."""


class RegionSums(ipywidgets.VBox):
    """The chart and the table.

    Attributes:
        quantity: The control for what the chart shows, "mass" or "weight".
        heads: The control for the heads, "mean" or "chosen".
        controls: Both controls; hidden if there are no objects.
        curve: The chart; a click on it makes a layer the current one.
        table: All kinds of pairs in the chosen layer, or the reason why there are none.
    """

    def __init__(self, places: HeadPlaces) -> None:
        self._places = places
        self.quantity = ipywidgets.Dropdown(options=["mass", "weight"], description="sums of")
        self.heads = ipywidgets.Dropdown(
            options=[("mean over heads", "mean"), ("the chosen head", "chosen")], description="heads"
        )
        self.controls = group("Attention between regions", self.quantity, self.heads)
        self.curve = Curve(x=list(range(places.n_layers)), x_label="layer (block)", title="attention between regions")
        self.table = ipywidgets.HTML()
        self._both = beside(self.curve, self.table)
        super().__init__()

    def of_heads(self, chosen: tuple[int, int]) -> Literal["mean"] | int:
        """The heads over which sums are taken, as `AttentionRegions.mean` accepts them, for the chosen map."""
        layer, head = chosen
        one = self.heads.value == "chosen" and layer != self._places.pool and head != self._places.mean_head
        return head if one else "mean"

    def explain(self, text: str) -> None:
        """Show the reason why there are no sums."""
        self.table.value = text
        self.children, self.controls.layout.display = (self.table,), "none"

    def wait_for_numbers(self) -> None:
        """Empty the chart while other sums are computed."""
        self.curve.series = []
        self.table.value = "Attention between regions: computing"
        self.children, self.controls.layout.display = (self._both,), None

    def show(self, regions: AttentionRegions, chosen: tuple[int, int]) -> None:
        """Draw the chart, and the table of the chosen layer, pooling head, or mean over layers."""
        quantity, (layer, head), places = self.quantity.value, chosen, self._places
        heads = self.of_heads(chosen)
        of_kind = dict(zip(regions.kinds, regions.mean(quantity, heads=heads), strict=True))
        shown = {kind: of_kind[kind] for kind in REGION_STYLES if np.isfinite(of_kind[kind]).all()}
        values = np.array([0.0, *(value for of_layers in shown.values() for value in of_layers)])
        with self.curve.hold_sync():
            self.curve.series = [
                line(kind, values.tolist(), on_any_ground(REGION_STYLES[kind].colour), svg_dash(REGION_STYLES[kind]))
                for kind, values in shown.items()  # the image has no other pairs
            ]
            self.curve.limits = [0.0, HIGHER * value_span(values, SHARE if quantity == "mass" else None)[1]]
            self.curve.y_label = REGION_LABELS[quantity].split(" (")[0]
            self.curve.label = f"Attention between regions over layers, {heads_words(heads)}"
            if layer < places.n_layers:
                self.curve.current = layer
        if layer == places.pool:
            self.table.value = pool_table(regions, None if head == places.mean_head else head)
        else:
            self.table.value = regions_table(regions, layer if layer < places.n_layers else None, heads)
        self.children, self.controls.layout.display = (self._both,), None
