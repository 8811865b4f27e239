"""The classes of a data set and of a model are paired by name, not by number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caap_lab import HookedViT, ImageSet, InputError, benchmark, open_images
from caap_lab.bench.pairing import label_of, with_model_classes
from caap_lab.data.image_set import Regions, Sample
from caap_lab.models.classes import ClassNames
from helpers.models import build

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGENET = ClassNames.imagenet1k()


@pytest.fixture(scope="module")
def model() -> HookedViT:
    return build("vit")


class Named:
    """What pairing asks of a model."""

    model_name = "m"

    def __init__(self, names: Sequence[str] | ClassNames) -> None:
        self.class_names = names if isinstance(names, ClassNames) else ClassNames(tuple(names))


def one_each(names: Sequence[str] | ClassNames) -> ImageSet:
    names = names if isinstance(names, ClassNames) else ClassNames(tuple(names))
    samples = (Sample(str(index), lambda: Image.new("RGB", (8, 8)), index) for index in range(len(names)))
    return ImageSet("own", "own:photos", tuple(samples), names)


def paired(data: Sequence[str] | ClassNames, model: Sequence[str] | ClassNames) -> list[int]:
    images = one_each(data)
    return [label_of(sample, images, Named(model)) for sample in images]  # type: ignore[arg-type]


def test_sorted_folders_are_paired_with_a_model_in_number_order(tmp_path: Path) -> None:
    for name in DIGITS:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    images = open_images(f"folder:{tmp_path}")
    assert images[0].name == "eight/1.png" and images[0].label == 0
    found = {sample.name: label_of(sample, images, Named(DIGITS)) for sample in images}  # type: ignore[arg-type]
    assert found == {f"{name}/1.png": index for index, name in enumerate(DIGITS)}


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        (["T-shirt", "ankle_boot", "CAFE\u0301"], ["Ankle boot", "caf\u00e9", "t shirt"], [2, 0, 1]),
        (["tabby_cat", "great_white_shark"], IMAGENET, [281, 2]),  # a part of the classes, under a synonym
        (["n02123045", "n01440764"], IMAGENET, [281, 0]),
        (IMAGENET, ClassNames(IMAGENET.names[::-1], IMAGENET.ids[::-1]), list(range(1000))[::-1]),
        (IMAGENET, IMAGENET, list(range(1000))),  # two cranes, and none of them unknown
        (IMAGENET, IMAGENET.names, list(range(1000))),
        (["b", "a"], ClassNames.numbered(2), [0, 1]),  # this model has no names
        (ClassNames.numbered(2), ["b", "a"], [0, 1]),
        (["0", "1", "10", "2"], ClassNames.numbered(11), [0, 1, 10, 2]),  # folders named by class number
        (["281", "9"], IMAGENET, [281, 9]),
        (["2", "1"], ["1", "2"], [1, 0]),  # these digits are the names
    ],
)
def test_pairs(data: Sequence[str], model: Sequence[str], expected: list[int]) -> None:
    assert paired(data, model) == expected


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (["cat", "dgo"], ["dog", "cat"], r"has the class 'dgo', which m does not have. Nearest: dog"),
        (["crane"], IMAGENET, r"'crane' .* can be any of the classes 134 .*, 517 "),
        (["Cat", "cat"], ["cat", "dog"], r"has 2 classes, Cat, cat, that are all class 0 \(cat\)"),
        (["cat", "cat"], ["dog", "cat"], r"2 classes, cat, cat, that are all"),
        (["b", "a"], ClassNames.numbered(3), r"counts 2 classes and m has 3"),
        (["1", "2", "3"], ["a", "b", "c"], r"counts 3 classes and m has 3, but their names"),  # counted from 1
        (["1", "01"], ["a", "b"], r"counts 2 classes"),
        (ClassNames.numbered(2), ["a", "b", "c"], r"counts 2 classes and m has 3"),
    ],
)
def test_names_that_disagree_are_refused(data: Sequence[str], model: Sequence[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        paired(data, model)
    assert "target='prediction'" in str(refused.value)


def test_masks_are_paired_like_labels() -> None:
    left, right = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2], right[0, 3] = True, True
    sample = Sample(
        "a", lambda: Image.new("RGB", (4, 4)), 0, lambda: Regions({0: left, 1: right, 2: ~left, None: right})
    )
    images = ImageSet("own", "own:", (sample,), ClassNames(("cat", "dog", "bird")))
    masks = with_model_classes(sample, images, Named(("x", "dog", "cat"))).regions.masks  # type: ignore[arg-type]
    assert list(masks) == [2, 1, None]
    assert masks[2] is left and masks[1] is right and np.array_equal(masks[None], ~left | right)
    others = with_model_classes(sample, images, Named(("x", "y", "z", "w"))).regions.masks  # type: ignore[arg-type]
    assert list(others) == [None], "class 0 of the data is not the model's class 0"


def test_a_benchmark_explains_the_class_of_the_same_name(model: HookedViT, tmp_path: Path) -> None:
    names = ("g", "f", "e", "d", "c", "b", "a")
    for index, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (30 * index, 80, 90)).save(tmp_path / "photos" / name / "1.png")
    named = HookedViT(model.vit, class_names=names)
    images = open_images(f"folder:{tmp_path / 'photos'}").only(["a/1.png", "g/1.png"])
    result = benchmark(named, "grad_cam", images, out=tmp_path / "run", target="label", metrics=["faithfulness"])
    rows = result.to_dataframe().set_index("image")
    assert dict(rows["target"]) == {"a/1.png": 6, "g/1.png": 0}
    assert dict(rows["target_name"]) == {"a/1.png": "a", "g/1.png": "g"}
