"""Comparisons that an explorer shows next to its maps: another class or photo, and the difference of two maps."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import ipywidgets
import traitlets
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.base import HookedModel
from caap_lab.models.probability import probabilities
from caap_lab.widgets.target_box import TargetBox

Comparison = Literal["nothing", "class", "photo"]


class CompareControl(ipywidgets.VBox):
    """A second row of maps: none, maps of another class, or maps of another photo.

    Attributes:
        kind: A dropdown with one of `Comparison`.
        target_box: The other class; None until it is requested. Empty means the second likeliest class.
        photo: A dropdown with the index of the other photo.
    """

    def __init__(self, model: HookedModel, on_choice: Callable[[TargetBox], None]) -> None:
        self._model, self._on_choice = model, on_choice
        self.target_box: TargetBox | None = None
        options = [("nothing", "nothing"), ("another class", "class"), ("another photo", "photo")]
        if model.n_classes == 1:
            del options[1]
        self.kind = ipywidgets.Dropdown(
            options=options,
            description="with",
            tooltip="A second row of maps to compare",
        )
        self.photo = ipywidgets.Dropdown(options=[], description="photo", tooltip="The other photo")
        super().__init__([self.kind])
        self.add_class("caap-choices")
        self.kind.observe(self._show, "value")

    def offer(self, names: Sequence[str]) -> None:
        """Set the names of the photos."""
        chosen = self.photo.value
        with self.hold_trait_notifications():
            self.photo.options = [(name, place) for place, name in enumerate(names)]
            self.photo.value = chosen if chosen is not None else min(1, len(names) - 1)

    def keep_apart(self, place: int, instead: int) -> None:
        """Choose a different photo if the compared one is the first: no photo is compared with itself."""
        if self.kind.value == "photo" and self.photo.value == place:
            self.photo.value = instead

    def suggest(self, logits: Float[Tensor, "classes"], other: int | None) -> None:
        """Suggest the other class.

        Args:
            logits: Logits of the photo.
            other: The class that an empty field means.
        """
        if self.target_box is None:
            return
        self.target_box.suggest(probabilities(logits))
        if other is not None:
            self.target_box.placeholder = f"next likeliest: {self._model.class_names.name(other)}"

    def _show(self, _: Any) -> None:
        if self.kind.value == "class" and self.target_box is None:
            self.target_box = TargetBox(self._model, None)
            self._on_choice(self.target_box)
        shown = {"nothing": (), "class": (self.target_box,), "photo": (self.photo,)}[self.kind.value]
        self.children = (self.kind, *shown)


class DifferenceControl(ipywidgets.VBox):
    """The difference of two maps.

    Attributes:
        pair: Keys of their tiles; empty for no difference.
    """

    pair = traitlets.Tuple(traitlets.Unicode(), traitlets.Unicode(), default_value=("", ""))

    def __init__(self) -> None:
        self.first = ipywidgets.Dropdown(options=[("no map", "")], description="of", tooltip="A map")
        self.second = ipywidgets.Dropdown(options=[("no map", "")], description="minus", tooltip="The map to subtract")
        super().__init__([self.first, self.second])
        self.add_class("caap-choices")
        self._offering = False
        for box in (self.first, self.second):
            box.observe(self._choose, "value")

    def offer(self, maps: Sequence[tuple[str, str]]) -> None:
        """Set the available maps, as caption and key; the chosen maps are kept if they still exist."""
        options = (("no map", ""), *maps)
        if self.first.options == options:
            return
        known = {key for _, key in maps}
        pair = [key if key in known else "" for key in self.pair]
        self._offering = True
        try:
            for box, key in ((self.first, pair[0]), (self.second, pair[1])):
                box.options = options
                box.value = key
        finally:
            self._offering = False
        self._choose(None)

    def _choose(self, _: Any) -> None:
        if not self._offering:
            self.pair = (self.first.value or "", self.second.value or "")
