"""The controls of the patching widget: which tokens, where in the network, and what replaces them."""

import ipywidgets

from caap_lab.activations.token_maps import numbered
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.check_row import CheckRow
from caap_lab.widgets.panel import group
from caap_lab.widgets.patch_settings import OTHERS, PUT_IN, Point, points_of

_PUT_IN = {
    "source": "the source photo's",
    "mean": "mean over photos",
    "token_mean": "mean over photos and tokens",
    "shuffled": "another photo's",
    "noise": "noise of the same spread",
    "zero": "zeros",
}
_OTHERS = {"evolve": "evolve (free)", "held": "held (clamped)"}


class PatchControls:
    """The settings next to the photos.

    Attributes:
        point: Kind of hook point, a dropdown of `Point`s.
        layers: First and last layer.
        heads: Check boxes; none for all.
        prefix: Check boxes of the prefix tokens.
        put_in: What replaces the activations.
        others: How the other tokens behave.
        every: Button that selects all patches.
        clear: Button that selects none.
        as_caap: Button for CAAP's patch.
    """

    def __init__(self, model: HookedViT) -> None:
        last = model.n_layers - 1
        points = points_of(model)
        self._by_name = {point.name: point for point in points}
        self.point = ipywidgets.Dropdown(options=[(point.label, point) for point in points], description="point")
        self.layers = ipywidgets.IntRangeSlider(value=(0, max(0, self.cutoff(model) - 1)), min=0, max=last)
        self.layers.description, self.layers.readout_format = "layers", "d"
        self.heads = CheckRow(title="heads", none=": all")
        self.prefix = CheckRow(title="prefix tokens", labels=numbered(model.spec.prefix))
        self.put_in = ipywidgets.Dropdown(options=[(_PUT_IN[name], name) for name in PUT_IN], description="replace by")
        self.others = ipywidgets.Dropdown(options=[(_OTHERS[name], name) for name in OTHERS], description="others")
        self.others.tooltip = "Tokens that are not patched: free to change, or held as in the target photo's own run"
        self.every = ipywidgets.Button(description="all patches")
        self.clear = ipywidgets.Button(description="none")
        self.as_caap = ipywidgets.Button(description="as CAAP does")
        self.as_caap.tooltip = (
            "The chosen patches (a single one with its neighbours) in the white blank, stream of the first 2/3 of "
            "the blocks, other tokens held: the score is the one in CAAP's map"
        )
        self.fit()

    @staticmethod
    def cutoff(model: HookedViT) -> int:
        """Number of blocks that CAAP patches by default."""
        return cutoff_blocks(None, model.n_layers)

    def named(self, name: str) -> Point:
        """A point of the model by name."""
        return self._by_name[name]

    def fit(self) -> None:
        """Show the controls that apply to the point."""
        point: Point = self.point.value
        self.heads.labels = [str(head) for head in range(point.heads)]
        self.heads.chosen = list(self.heads.chosen)  # only those that exist
        shown = {
            self.layers: point.in_blocks,
            self.heads: point.heads > 1,
            self.prefix: point.has_tokens and bool(self.prefix.labels),
            self.others: point.has_tokens,
        }
        for control, there in shown.items():
            control.layout.display = None if there else "none"

    @property
    def groups(self) -> list[ipywidgets.VBox]:
        """Two groups: which tokens, and how they are patched."""
        buttons = ipywidgets.HBox([self.every, self.clear, self.as_caap])
        buttons.add_class("caap-patch-buttons")
        return [
            group("Patches", buttons, self.prefix),
            group("Activations", self.point, self.layers, self.heads),
            group("Replacement", self.put_in, self.others),
        ]
