"""Attention between regions: a chart over layers, and a table of the chosen layer."""

from typing import Literal

import ipywidgets
import numpy as np

from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.plots.attention import REGION_LABELS, REGION_STYLES
from caap_lab.widgets.attention_words import heads_words, on_any_ground, pool_table, regions_table
from caap_lab.widgets.curve_view import Curve, line, svg_dash


class RegionSums(ipywidgets.HBox):
    """The chart with its choices, and the table.

    Attributes:
        quantity: The control for what the chart shows, "mass" or "weight".
        heads: The control for the heads, "mean" or "chosen".
        curve: The chart; a click on it makes a layer the current one.
        table: All kinds of pairs in the chosen layer, or why there are none.
    """

    def __init__(self, n_layers: int, control_width: str) -> None:
        wrap = {"flex_flow": "row wrap"}
        self.quantity = ipywidgets.Dropdown(options=["mass", "weight"], description="sums of")
        self.heads = ipywidgets.Dropdown(
            options=[("mean over heads", "mean"), ("the chosen head", "chosen")], description="heads"
        )
        for control in (self.quantity, self.heads):
            control.layout.width, control.style.description_width = control_width, "initial"
        self.curve = Curve(x=list(range(n_layers)), x_label="layer (block)")
        self.table = ipywidgets.HTML()
        self._chart = ipywidgets.VBox([ipywidgets.HBox([self.quantity, self.heads], layout=wrap), self.curve])
        super().__init__(layout=wrap)
        self.children: tuple[ipywidgets.Widget, ...] = ()

    def of_heads(self, chosen_head: int) -> Literal["mean"] | int:
        """Which heads the sums are of, as `AttentionRegions.mean` takes it."""
        return "mean" if self.heads.value == "mean" else chosen_head

    def explain(self, text: str) -> None:
        """Say why there are no sums."""
        self.table.value = text
        self.children = (self.table,)

    def wait_for_numbers(self) -> None:
        """Empty the chart: other sums are being computed."""
        self.curve.series = []
        self.table.value = "Attention between regions: computing"

    def show(self, regions: AttentionRegions, layer: int, chosen_head: int) -> None:
        """Draw the chart, and the table of one layer, or of the pooling head behind the last one."""
        quantity, pooled = self.quantity.value, layer >= len(self.curve.x)
        heads = "mean" if pooled else self.of_heads(chosen_head)
        of_kind = dict(zip(regions.kinds, regions.mean(quantity, heads=heads), strict=True))
        with self.curve.hold_sync():
            self.curve.series = [
                line(kind, of_kind[kind].tolist(), on_any_ground(style.colour), svg_dash(style))
                for kind, style in REGION_STYLES.items()
                if np.isfinite(of_kind[kind]).all()  # else the image has no such pairs
            ]
            self.curve.y_label = REGION_LABELS[quantity]
            self.curve.label = f"Attention between regions over layers, {heads_words(heads)}"
            if not pooled:
                self.curve.current = layer
        self.table.value = pool_table(regions, chosen_head) if pooled else regions_table(regions, layer, heads)
        self.children = (self._chart, self.table)
