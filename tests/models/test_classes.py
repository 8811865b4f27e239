"""What a person types finds one class, or a message with the candidates."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames

IMAGENET = ClassNames.imagenet1k()


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (281, 281),
        (np.int64(281), 281),
        (np.array(281), 281),
        (torch.tensor(281), 281),
        ("281", 281),
        (" 281 ", 281),
        ("n02123045", 281),
        ("N02123045", 281),
        ("tabby", 281),
        ("Tabby", 281),
        ("tabby cat", 281),
        ("tabby, tabby cat", 281),
        ("tiger cat", 282),
        ("tiger", 292),
        ("Siamese  cat", 284),
        ("great pyrenees", 257),
        ("tench", 0),
        ("persian", 283),
    ],
)
def test_find(target: object, index: int) -> None:
    assert IMAGENET.find(target) == index
    assert type(IMAGENET.find(target)) is int


def test_ambiguous_words_list_the_candidates() -> None:
    with pytest.raises(InputError, match="134 crane; 517 crane"):
        IMAGENET.find("crane")
    with pytest.raises(InputError, match=r"281 tabby, tabby cat; .*282 tiger cat"):
        IMAGENET.find("cat")
    with pytest.raises(InputError, match="and more") as caught:
        IMAGENET.find("dog")
    assert str(caught.value).count(";") == 10


def test_unknown_words_list_the_nearest() -> None:
    with pytest.raises(InputError, match="Nearest: 281 tabby"):
        IMAGENET.find("taby")
    for word in ("qqqqqqqq", "", " ", "n99999999", "tab", "(", "1.5"):
        with pytest.raises(InputError, match="There is no class"):
            IMAGENET.find(word)


@pytest.mark.parametrize("index", [-1, 1000, "-1", "1000", np.int64(-3), torch.tensor(5000)])
def test_out_of_range_is_refused(index: object) -> None:
    with pytest.raises(InputError, match="classes 0 to 999"):
        IMAGENET.find(index)


@pytest.mark.parametrize(
    "target",
    [True, np.True_, torch.tensor(True), 1.0, torch.tensor(1.0), None, [1], torch.tensor([1]), np.array([1])],
)
def test_other_kinds_are_refused(target: object) -> None:
    with pytest.raises(InputError, match="index or the name"):
        IMAGENET.find(target)


def test_every_imagenet_class_is_found_by_id_and_by_its_whole_name() -> None:
    assert len(IMAGENET) == len(set(IMAGENET.ids)) == 1000
    assert [IMAGENET.find(one) for one in IMAGENET.ids] == list(range(1000))
    shared_names = {name for name in IMAGENET.names if IMAGENET.names.count(name) > 1}
    for index, name in enumerate(IMAGENET.names):
        if name not in shared_names and name not in ("maillot", "sunglass"):
            try:
                assert IMAGENET.find(name) == index
            except InputError as error:  # a name that is also another class's synonym
                assert f"{index} {name}" in str(error)


def test_name_is_the_first_synonym() -> None:
    assert IMAGENET.name(281) == "tabby"
    assert ClassNames(("cat", "dog, hound")).name(1) == "dog"
    with pytest.raises(InputError, match="classes 0 to 1"):
        ClassNames(("cat", "dog")).name(2)


def test_names_are_read_like_those_of_a_list() -> None:
    names = ClassNames(("cat", "dog, hound"))
    assert names[1] == names[torch.tensor(1)] == names.name(1) == "dog"
    assert list(names) == ["cat", "dog"] and "dog" in names and "hound" not in names
    for index in (2, -1, "dog"):
        with pytest.raises(InputError):
            names[index]  # type: ignore[index]


def test_find_many() -> None:
    assert IMAGENET.find_many("tabby", 3) == [281] * 3
    assert IMAGENET.find_many(7, 2) == [7, 7]
    for targets in (["tabby", 282, "n02123159"], ("281", 282, 282)):
        assert IMAGENET.find_many(targets, 3) == [281, 282, 282]
    for targets in (np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)):
        assert IMAGENET.find_many(targets, 2) == [1, 2]
    with pytest.raises(InputError, match="2 targets were given for 3 images"):
        IMAGENET.find_many([1, 2], 3)
    with pytest.raises(InputError, match="classes 0 to 999"):
        IMAGENET.find_many([1, 1000], 2)


def test_names_that_are_digits() -> None:
    reverse = ClassNames(tuple("9876543210"))
    assert reverse.find("9") == 0, "a name goes before an index"
    assert reverse.find(9) == 9


def test_for_model() -> None:
    assert ClassNames.for_model(1000) is IMAGENET
    assert ClassNames.for_model(3).names == ("class 0", "class 1", "class 2")
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    assert len(ClassNames.for_model(VisionTransformer(**options, num_classes=5))) == 5
    assert len(ClassNames.for_model(VisionTransformer(**options, num_classes=0))) == 12
    assert ClassNames.for_model(VisionTransformer(**options, num_classes=1000)) is IMAGENET
    assert ClassNames.numbered(4).find("class 3") == 3


def test_bad_names_are_refused() -> None:
    for names, message in (((), "No class names"), ("cat", "list of strings"), ((1, 2), "list of strings")):
        with pytest.raises(InputError, match=message):
            ClassNames(names)
    with pytest.raises(InputError, match="1 class ids were given for 2 names"):
        ClassNames(("cat", "dog"), ("n1",))
    assert ClassNames(["cat", "dog"]) == ClassNames(("cat", "dog"))
