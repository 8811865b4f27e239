"""The target of each image in a run: the model's own prediction, the image's label, or a target with these as classes.

A rule is "prediction", "label", or a target whose classes may be these two words: `cl.contrast("prediction")`,
`cl.contrast("label", "tiger cat")`, `cl.logit("prediction")`; or a direction, or a function of the logits.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch

from caap_lab.attribution.registry import fingerprint_of
from caap_lab.bench.pairing import label_of
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.digests.code import code_digest
from caap_lab.digests.tensors import tensor_digest
from caap_lab.errors import InputError
from caap_lab.files import has_form
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.targets import Contrast, Direction, FunctionOfLogits, Logit, TargetLike

WORDS = ("prediction", "label")


@dataclass(frozen=True)
class OwnTarget:
    """A direction or a function of the logits, as the plan of a run stores it: its name, and its content as a hash."""

    kind: str
    """"direction" or "function"."""
    name: str
    digest: str
    """Hash of its vector or its code."""


TargetRule = str | Contrast | Logit | Direction | FunctionOfLogits | OwnTarget


def check_rule(rule: Any) -> None:
    """Raise InputError for an invalid rule.

    Raises:
        InputError: the message lists the valid ones.
    """
    if isinstance(rule, str) and rule not in WORDS:
        raise InputError(
            f"target={rule!r} is not known; use {' or '.join(WORDS)}, or a target of these or of fixed classes: "
            "cl.contrast('prediction'), cl.contrast('label', 'tiger cat'), cl.logit('tabby')."
        )
    if not (isinstance(rule, (str, Contrast, Logit, Direction, OwnTarget)) or callable(rule)):
        raise InputError(
            f"target={rule!r} is not known; use {' or '.join(WORDS)}, cl.contrast(...), cl.logit(...), "
            "cl.direction(...) or a function of the logits."
        )


def rule_to_json(rule: TargetRule) -> str | dict[str, Any]:
    """A rule as plans store it. Directions and functions are stored by name and hash: `OwnTarget`."""
    match rule:
        case str():
            return rule
        case Contrast(of, against):
            return {"contrast": [_plain(of), None if against is None else _plain(against)]}
        case Logit(of):
            return {"logit": _plain(of)}
    own = own_target(rule)
    return {"own": [own.kind, own.name, own.digest]}


def rule_from_json(content: Any) -> TargetRule:
    """The rule written by `rule_to_json`.

    Raises:
        InputError: it is not a rule.
    """
    match content:
        case str():
            return content
        case {"contrast": [of, against], **rest} if not rest and has_form([of, against], [(str, int, None)]):
            return Contrast(of, against)
        case {"logit": str() | int() as of, **rest} if not rest:
            return Logit(of)
        case {"own": [str(kind), str(name), str(digest)], **rest} if not rest:
            return OwnTarget(kind, name, digest)
    raise InputError(f"its target {content!r} is none")


def rule_in_key(rule: TargetRule, *, by_contrast: bool) -> str | dict[str, Any]:
    """The part of a rule that determines a trial's numbers: equal for rules that read the same from a model.

    A class is explained by its own logit, or by its contrast to the mean of all if classes are text embeddings.

    Args:
        rule: The rule.
        by_contrast: True for a model whose classes are text embeddings, see `caap_lab.models.explained.by_contrast`.
    """
    match rule:
        case str() if by_contrast:
            return rule_to_json(Contrast(rule))
        case Logit(str(of)) if of in WORDS:
            return of
    return rule_to_json(rule)


def _plain(of: int | str) -> int | str:
    """A class as JSON stores it, which does not accept NumPy's numbers."""
    return of if isinstance(of, str) else operator.index(of)


def own_target(rule: TargetRule) -> OwnTarget:
    """A direction or function by its name and the hash of its content.

    Raises:
        InputError: the function depends on something that cannot be hashed.
    """
    if isinstance(rule, OwnTarget):
        return rule
    if isinstance(rule, Direction):
        return OwnTarget("direction", rule.name, tensor_digest(rule.vector.double().cpu()))
    name = getattr(rule, "__name__", type(rule).__name__)
    return OwnTarget("function", name, code_digest(rule, f"The target {name!r}", identity=fingerprint_of))  # type: ignore[arg-type]


def rule_text(rule: TargetRule) -> str:
    """Short text for rows: "prediction", "contrast(label, tiger cat)", "direction striped"."""
    match rule:
        case str():
            return rule
        case Contrast(of, None):
            return f"contrast({of})"
        case Contrast(of, against):
            return f"contrast({of}, {against})"
        case Logit(of):
            return f"logit({of})"
    own = own_target(rule)
    return f"{own.kind} {own.name}"


def rule_words(rule: TargetRule) -> str:
    """Text for the notes of tables: "the model's own prediction against the mean of all classes"."""
    match rule:
        case str():
            return _class_words(rule)
        case Contrast(of, None):
            return f"{_class_words(of)} against the mean of all classes"
        case Contrast(of, against):
            return f"{_class_words(of)} rather than {_class_words(against)}"
        case Logit(of):
            return f"{_class_words(of)} by its own logit"
    own = own_target(rule)
    return f"the {own.kind} {own.name!r}"


def _class_words(of: int | str | None) -> str:
    words = {"prediction": "the model's own prediction", "label": "the image's label"}
    return words.get(of, of) if isinstance(of, str) else f"class {of}"


def fixed_classes(rule: TargetRule | int) -> list[int | str]:
    """The classes that a rule names itself."""
    named = {Contrast: ("of", "against"), Logit: ("of",)}.get(type(rule), ())
    classes = [getattr(rule, name) for name in named]
    return [one for one in classes if one is not None and one not in WORDS]


def has_probability(rule: TargetRule) -> bool:
    """False for directions and functions of the logits."""
    return isinstance(rule, (str, Contrast, Logit))


def reads_prediction(rule: TargetRule | int) -> bool:
    """True if the target of an image depends on the model's run on it."""
    match rule:
        case Contrast(of, against):
            return "prediction" in (of, against)
        case Logit(of):
            return of == "prediction"
    return rule == "prediction"


def reads_label(rule: TargetRule | int) -> bool:
    """True if the target of an image depends on its label."""
    match rule:
        case Contrast(of, against):
            return "label" in (of, against)
        case Logit(of):
            return of == "label"
    return rule == "label"


def target_by_rule(
    rule: TargetRule | int,
    model: HookedModel,
    x: Images,
    sample: Sample | None = None,
    images: ImageSet | None = None,
) -> TargetLike | None:
    """The target of an image by a rule, as `cl.attribute` accepts it; None for the model's own prediction.

    Args:
        rule: The rule, or a class's index.
        model: The model.
        x: The image.
        sample: The image with its label.
        images: Its data set, which has the names of its labels.

    Raises:
        InputError: the image has no label that the model knows, or the direction or function is known only by name.
    """

    def one(of: int | str) -> int | str:
        if of == "prediction":
            with torch.no_grad():
                return int(model(x)[0].argmax())
        if of == "label":
            if images is None or sample is None:
                raise InputError("Labels are those of a data set, as cl.open_images gives it.")
            return label_of(sample, images, model)
        return of

    match rule:
        case "prediction":
            return None
        case str():
            return one(rule)
        case Contrast(of, against):
            return Contrast(one(of), None if against is None else one(against))
        case Logit(of):
            return Logit(one(of))
        case OwnTarget(kind, name):
            raise InputError(f"The target was the {kind} {name!r}, which plans keep by name alone: give it again.")
    return rule
