"""Choosing a class: a field that searches all classes, likeliest first. Other targets are given in the call."""

import re
from collections.abc import Callable
from typing import Any, cast

import anywidget
import traitlets
from jaxtyping import Float
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.explained import by_contrast, explained, resolved_target
from caap_lab.models.targets import Contrast, Logit, Target, TargetLike
from caap_lab.widgets.scripts import joined, styles


class TargetBox(anywidget.AnyWidget):
    """A field for a class's name, a part of it, its WordNet id or its index, and a list of matches below it.

    All classes are searched in the browser, also while the kernel is busy. An invalid text stays in the field, with the
    reason below, and the last valid target is kept.

    Attributes:
        target: The target: a class's index, the contrast of two, or the target given in the call; None means the
            model's own prediction.
        names: All classes, with their synonyms.
        ids: Their WordNet ids, or empty.
        given: Name of the call's target, so that it can be chosen again; empty if a class was given.
        likelihoods: float32 [class] as bytes, the image's probabilities; empty until they are known.
        placeholder: Text of the empty field.
        value: The chosen or typed text: "281: tabby", "tabby", "n02123045", "281", or empty.
        against: Text of the class against, in the same form, or empty.
        problem: Why `value` or `against` is not a class, and the target used instead; empty if nothing is wrong.
    """

    _esm = joined("bytes.js", "elements.js", "class_search.js", "search_field.js", "target_box.js")
    _css = styles("widgets.css", "controls.css")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ids = traitlets.List(traitlets.Unicode()).tag(sync=True)
    given = traitlets.Unicode().tag(sync=True)
    likelihoods = traitlets.Bytes().tag(sync=True)
    placeholder = traitlets.Unicode("predicted class").tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
    against = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    def __init__(self, model: HookedModel, target: TargetLike | None) -> None:
        self._model = model
        self._given: Target | None = None
        self.target: Any = None
        if target is not None and (isinstance(target, str) or hasattr(target, "__index__")):
            self.target = model.target(cast(int | str, target))
        elif target is not None:
            _, (self._given,) = explained(model, target, 1)
            self.target = self._given.given
        classes = model.class_names if model.has_classifier else None  # otherwise features would count as classes
        super().__init__(
            names=list(classes.names) if classes else [],
            ids=list(classes.ids) if classes else [],
            placeholder="predicted class" if classes else "no classes: this model has no classifier",
            given=self._given_text,
            value="" if self.target is None else self._given_text or self._text(self.target),
        )

    def read(self) -> None:
        """Set the target from the typed text.

        Raises:
            InputError: there is no such class, several match, or both are the same.
        """
        if self._given is not None and self.value == self.given and not self.against:
            self.target = self._given.given
            return
        of, against = self._index(self.value), self._index(self.against)
        if against is None:
            self.target = of
        elif of is None:
            raise InputError("Choose the first class as well: the one explained rather than the other.")
        elif of == against:
            raise InputError(f"Both classes are {self._text(of)}; choose two.")
        else:
            self.target = Contrast(of, against)

    def resolved(self, predicted: int | None) -> Target | None:
        """The target for reading logits; None if it depends on a prediction that is not known yet.

        Args:
            predicted: The class that the model predicts.
        """
        if self._given is not None and self.target is self._given.given:
            return self._given
        target = predicted if self.target is None else self.target
        if target is None:
            return None
        return resolved_target(target, self._model.class_names, contrasts=by_contrast(self._model))

    def suggest(self, probabilities: Float[Tensor, "classes"]) -> None:
        """Suggest the classes in the order of an image's probabilities."""
        if not self.names:
            return
        best = int(probabilities.argmax())
        self.likelihoods = probabilities.float().cpu().numpy().astype("<f4").tobytes()
        self.placeholder = f"predicted: {self._model.class_names.name(best)}, {float(probabilities[best]):.1%}"

    def on_choice(self, call: Callable[[], None], on: Callable[..., None]) -> None:
        """Call when another class is chosen; an invalid text is reported next to the field instead.

        Args:
            call: The function to call.
            on: The panel's `_on`, which shows other errors.
        """

        def chosen() -> None:
            try:
                self.read()
            except InputError as error:
                self.problem = f"{error} Still shown: {self._shown}."
                return
            self.problem = ""
            call()

        on(self, ("value", "against"), chosen)

    def _index(self, text: str) -> int | None:
        """The class that a text means; None for an empty text."""
        chosen = re.fullmatch(r"(\d+): .*", text.strip())
        if chosen is not None and text.strip() == self._text(int(chosen[1])):
            return int(chosen[1])
        return self._model.target(text.strip()) if text.strip() else None

    def _text(self, index: int) -> str:
        return f"{index}: {self._model.class_names.name(index)}"

    @property
    def _shown(self) -> str:
        target = self.resolved(None)
        return "the predicted class" if target is None else target.name

    @property
    def _given_text(self) -> str:
        if self._given is None:
            return ""
        logit = isinstance(self._given.given, (int, Logit))
        return f"logit of {self._given.name}" if logit else self._given.name


def compared_classes(target: Target | None) -> tuple[int | None, int | None]:
    """The class in favour, and the class against; None if there is none."""
    if target is None:
        return None, None
    against = target.given.against if isinstance(target.given, Contrast) else None
    return target.index, None if against is None else int(against)


def target_call(target: Any) -> str:
    """The Python expression of a target; a direction or a function is written as the name `target`."""
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
