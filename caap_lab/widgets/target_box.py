"""Choosing a class: the ten likeliest, or any by index, WordNet id or word. Other targets are given at the call."""

from collections.abc import Callable
from typing import Any, cast

import ipywidgets
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Contrast, Logit, Target, TargetLike, by_contrast, explained, resolved_target

LIKELIEST = 10


class TargetBox(ipywidgets.Combobox):
    """A search box whose suggestions are a prediction's likeliest classes.

    Attributes:
        target: What is explained: a class's index, or the target that was given at the call; None stands for the
            model's own prediction, and for what is typed first.
    """

    def __init__(self, model: HookedModel, target: TargetLike | None) -> None:
        self._model = model
        self._given: Target | None = None
        self.target: Any = None
        if target is not None and (isinstance(target, str) or hasattr(target, "__index__")):
            self.target = model.target(cast(int | str, target))
        elif target is not None:
            _, (self._given,) = explained(model, target, 1)
            self.target = self._given.given
        value = "" if self.target is None else self._given_text or self._text(self.target)
        super().__init__(
            description="class",
            placeholder="predicted class",
            continuous_update=False,
            tooltip="Index, WordNet id or word of a class; empty for the model's own prediction",
            options=self._first_options,
            value=value,
        )

    def read(self) -> None:
        """Take over what is typed.

        Raises:
            InputError: there is no such class, or several fit.
        """
        if self._given is not None and self.value == self._given_text:
            self.target = self._given.given
            return
        typed = self.value.split(":", 1)[0] if self.value in self.options else self.value
        self.target = self._model.target(typed.strip()) if typed.strip() else None

    def resolved(self, predicted: int | None) -> Target | None:
        """What is explained, as logits are read for it; None while the prediction is not known yet.

        Args:
            predicted: The class that the model predicts.
        """
        if self._given is not None and self.target is self._given.given:
            return self._given
        index = predicted if self.target is None else self.target
        if index is None:
            return None
        return resolved_target(index, self._model.class_names, contrasts=by_contrast(self._model))

    def suggest(self, probabilities: Float[Tensor, "classes"]) -> None:
        """Offer the likeliest classes of an image."""
        best = probabilities.argsort(descending=True, stable=True)[:LIKELIEST].tolist()
        likeliest = (f"{self._text(index)}, {float(probabilities[index]):.1%}" for index in best)
        self.options = (*self._first_options, *likeliest)

    def on_choice(self, call: Callable[[], None], on: Callable[..., None]) -> None:
        """Call when another class was typed or chosen; `on` is the panel's `_on`, which shows errors."""

        def chosen() -> None:
            self.read()
            call()

        on(self, "value", chosen)

    def _text(self, index: int) -> str:
        return f"{index}: {self._model.class_names.name(index)}"

    @property
    def _given_text(self) -> str:
        """The target of the call, as it can be chosen again; empty where a class was given."""
        if self._given is None:
            return ""
        logit = isinstance(self._given.given, (int, Logit))
        return f"logit of {self._given.name}" if logit else self._given.name

    @property
    def _first_options(self) -> tuple[str, ...]:
        return () if self._given is None else (self._given_text,)


def compared_classes(target: Target | None) -> tuple[int | None, int | None]:
    """The class that is spoken for, and the one that is spoken against; None where there is none."""
    if target is None:
        return None, None
    against = target.given.against if isinstance(target.given, Contrast) else None
    return target.index, None if against is None else int(against)


def target_call(target: Any) -> str:
    """The Python expression of a target; a direction or a function is called by the name `target`."""
    match target:
        case Contrast(of, None):
            return f"cl.contrast({of})"
        case Contrast(of, against):
            return f"cl.contrast({of}, {against})"
        case Logit(of):
            return f"cl.logit({of})"
        case int() | None:
            return repr(target)
    return "target"
