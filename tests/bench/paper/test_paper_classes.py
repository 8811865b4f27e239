"""Which models' classes fit the paper's data sets."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch

import caap_lab as cl
from caap_lab.bench.paper.classes import class_problem
from caap_lab.data.image_set import ImageSet
from caap_lab.models.classes import ClassNames
from caap_lab.models.heads import ZeroShotHead

BREEDS = ClassNames(("Abyssinian", "american bulldog", "beagle"))


def images(names: ClassNames, label: int = 1) -> ImageSet:
    sample = replace(cl.open_images("demo:single")[0], label=label)
    return ImageSet("pet", "pet:here", (sample,), names)


def model(names: ClassNames) -> SimpleNamespace:
    return SimpleNamespace(class_names=names, model_name="mine", n_classes=len(names), head=None, target=names.find)


def test_a_model_without_a_classifier_says_so() -> None:
    headless = cl.HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0))
    assert "no classifier" in class_problem("ImageNet-1K", images(BREEDS), headless, by_label=False)


@pytest.mark.parametrize(
    "names, by_label, message",
    [
        (BREEDS, False, ""),
        (ClassNames.numbered(3), False, ""),
        (ClassNames(("Beagle", "American_Bulldog", "abyssinian")), True, ""),
        (ClassNames(("beagle", "tabby", "abyssinian")), False, ""),
        (ClassNames(("beagle", "tabby", "abyssinian")), True, "'american bulldog', which mine does not have"),
        (
            ClassNames(("rose", "tulip", "daisy")),
            False,
            "None of its classes (rose, tulip, daisy) is one of Oxford-",
        ),
        (ClassNames.numbered(4), False, "It has 4 classes, and Oxford-IIIT-Pet has 3."),
        (ClassNames.imagenet1k(), False, "It has 1,000 classes (ImageNet-1k's), and Oxford-IIIT-Pet has 3."),
        (ClassNames.numbered(21_843), False, "It has 21,843 classes (ImageNet-21k's), and Oxford-IIIT-Pet has 3."),
    ],
    ids=["same", "numbers", "reordered", "unread", "read", "others", "four", "imagenet-1k", "imagenet-21k"],
)
def test_classes_of_a_data_set(names: ClassNames, by_label: bool, message: str) -> None:
    problem = class_problem("Oxford-IIIT-Pet", images(BREEDS), model(names), by_label=by_label)
    assert message in problem and bool(message) == bool(problem)


def test_texts_as_classes_may_have_names_of_their_own() -> None:
    clip = model(ClassNames(("a cat", "a bulldog", "a dog")))
    clip.head = ZeroShotHead(torch.eye(3), 100.0)
    assert not class_problem("Oxford-IIIT-Pet", images(BREEDS), clip, by_label=False)
    assert "which mine does not have" in class_problem("Oxford-IIIT-Pet", images(BREEDS), clip, by_label=True)
    assert "3 classes (texts)" in class_problem("Oxford-IIIT-Pet", images(ClassNames.numbered(4)), clip, by_label=False)
