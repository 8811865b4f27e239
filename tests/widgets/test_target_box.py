"""The class field as Python sees it; the search itself is the browser's, see tests/browser/test_controls.py."""

import re

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.widgets.target_box import TargetBox, target_call


def name(box: TargetBox, predicted: int | None = None) -> str:
    target = box.resolved(predicted)
    assert target is not None
    return target.name


def on(widget: TargetBox, names: tuple[str, ...], call) -> None:
    widget.observe(lambda _: call(), names)


@pytest.fixture
def named(model: cl.HookedViT, monkeypatch: pytest.MonkeyPatch) -> cl.HookedViT:
    """The demo's ten classes under names that share words."""
    names = ("tabby, tabby cat", "tiger cat", "zebra", "crane", "crane, bird", *(f"thing {i}" for i in range(5)))
    ids = tuple(f"n{i:08}" for i in range(10))
    monkeypatch.setattr(model, "class_names", ClassNames(names, ids))
    return model


@pytest.mark.parametrize("text", ["281: tabby", "zebra", "ZEBRA ", "n00000002", "2", "2: zebra"])
def test_texts_that_mean_a_class(named: cl.HookedViT, text: str) -> None:
    box, called = TargetBox(named, None), []
    box.on_choice(lambda: called.append(box.target), on)
    box.value = text
    if text == "281: tabby":  # not one of this model's
        assert box.target is None and "Class 281 does not exist" in box.problem and not called
    else:
        assert called == [2] and box.problem == ""
    box.close()


def test_what_is_no_class_stays_with_the_reason_and_the_last_target(named: cl.HookedViT) -> None:
    box, called = TargetBox(named, "tabby"), []
    assert box.value == "0: tabby" and box.target == 0
    box.on_choice(lambda: called.append(box.target), on)
    for text, reason in (("zebru", "Nearest: 2 zebra"), ("cat", "matches 2 classes"), ("77", "Class 77 does not")):
        box.value = text
        assert box.target == 0 and reason in box.problem and box.problem.endswith("Still shown: tabby.")
        assert box.value == text and not called
    box.value = ""
    assert called == [None] and box.problem == "" and box.resolved(None) is None and name(box, 3) == "crane"
    box.close()


def test_one_class_rather_than_another(named: cl.HookedViT) -> None:
    box, called = TargetBox(named, None), []
    box.on_choice(lambda: called.append(box.target), on)
    box.against = "zebra"
    assert "Choose the first class" in box.problem and not called
    box.value = "tabby"
    assert called == [cl.contrast(0, 2)] and box.problem == "" and name(box, 5) == "tabby rather than zebra"
    assert target_call(box.target) == "cl.contrast(0, 2)"
    box.against = "0"
    assert "Both classes are 0: tabby" in box.problem and box.target == cl.contrast(0, 2)
    box.against = ""
    assert box.target == 0 and box.problem == ""
    box.close()


def test_the_given_target_can_be_chosen_again(named: cl.HookedViT) -> None:
    box = TargetBox(named, cl.contrast("zebra", "tiger cat"))
    given = box.target
    assert box.given == box.value == "zebra rather than tiger cat"
    box.value = "2"
    box.read()
    assert box.target == 2
    box.value = box.given
    box.read()
    assert box.target == given and name(box) == "zebra rather than tiger cat"
    box.close()
    with pytest.raises(InputError, match=re.escape("There is no class 'lion'")):
        TargetBox(named, "lion")


def test_the_prediction_stands_in_the_empty_field(named: cl.HookedViT) -> None:
    box = TargetBox(named, None)
    assert box.placeholder == "predicted class" and box.likelihoods == b""
    shares = torch.arange(10.0).softmax(0)
    box.suggest(shares.half())
    np.testing.assert_allclose(np.frombuffer(box.likelihoods, "<f4"), shares, rtol=2e-3)
    assert box.placeholder == "predicted: thing 4, 63.2%"
    assert box.names[:2] == ["tabby, tabby cat", "tiger cat"] and box.ids[9] == "n00000009"
    box.close()


def test_features_are_not_offered_as_classes(model: cl.HookedViT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "has_classifier", property(lambda model: False))
    box = TargetBox(model, None)
    box.suggest(torch.ones(10))
    assert box.names == [] and box.likelihoods == b"" and "no classifier" in box.placeholder
    box.close()
