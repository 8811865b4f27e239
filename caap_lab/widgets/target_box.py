"""Choosing a class: the ten likeliest, or any by index, WordNet id or word."""

from collections.abc import Callable

import ipywidgets
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.base import HookedModel

LIKELIEST = 10


class TargetBox(ipywidgets.Combobox):
    """A search box whose suggestions are a prediction's likeliest classes.

    Attributes:
        target: Index of the class; None stands for the model's own prediction, and what is typed first.
    """

    def __init__(self, model: HookedModel, target: int | str | None) -> None:
        self._model = model
        self.target: int | None = None if target is None else model.target(target)
        super().__init__(
            description="class",
            placeholder="predicted class",
            continuous_update=False,
            tooltip="Index, WordNet id or word of a class; empty for the model's own prediction",
            value="" if self.target is None else self._text(self.target),
        )

    def read(self) -> None:
        """Take over what is typed.

        Raises:
            InputError: there is no such class, or several fit.
        """
        typed = self.value.split(":", 1)[0] if self.value in self.options else self.value
        self.target = self._model.target(typed.strip()) if typed.strip() else None

    def suggest(self, probabilities: Float[Tensor, "classes"]) -> None:
        """Offer the likeliest classes of an image."""
        best = probabilities.argsort(descending=True, stable=True)[:LIKELIEST].tolist()
        self.options = tuple(f"{self._text(index)}, {float(probabilities[index]):.1%}" for index in best)

    def on_choice(self, call: Callable[[], None], on: Callable[..., None]) -> None:
        """Call when another class was typed or chosen; `on` is the panel's `_on`, which shows errors."""

        def chosen() -> None:
            self.read()
            call()

        on(self, "value", chosen)

    def _text(self, index: int) -> str:
        return f"{index}: {self._model.class_names.name(index)}"
