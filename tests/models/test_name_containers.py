"""Class names are taken from every container whose order is clear."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from caap_lab import HookedViT, InputError
from caap_lab.models.classes import ClassNames
from helpers.models import TINY, build

NAMES = ("cat", "dog", "ant")
CONTAINERS: dict[str, Any] = {
    "list": list(NAMES),
    "tuple": NAMES,
    "generator": (name for name in NAMES),
    "array": np.array(NAMES),
    "object array": np.array(NAMES, dtype=object),
    "Series": pd.Series(NAMES),
    "Series in another order": pd.Series(["ant", "cat", "dog"], index=[2, 0, 1]),
    "Index": pd.Index(NAMES),
    "index to name": {2: "ant", 0: "cat", 1: "dog"},
    "digits to name": {"2": "ant", "1": "dog", "0": "cat"},
    "NumPy's numbers to name": {np.int64(1): "dog", np.int64(0): "cat", np.int64(2): "ant"},
    "name to index": {"ant": 2, "cat": 0, "dog": 1},
    "keys": dict.fromkeys(NAMES).keys(),
    "values": dict(enumerate(NAMES)).values(),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_ordered_container(kind: str) -> None:
    names = ClassNames(CONTAINERS[kind])
    assert names.names == NAMES and all(type(name) is str for name in names.names)
    assert hash(names) == hash(ClassNames(NAMES))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"cat", "dog"}, "a set, which has no order"),
        (frozenset(NAMES), "a set, which has no order"),
        ("cat", "list of strings, not str"),
        (b"cat", "list of strings, not bytes"),
        (3, "list of strings, not int"),
        (np.array([NAMES]), "list of strings, not ndarray"),
        (np.array([1, 2]), "'1' is int64"),
        ([b"cat"], "is bytes"),
        (["cat", None], "'None' is NoneType"),
        ({0: "cat", 2: "dog"}, "not 0 to 1, each once; see 2"),
        ({1: "cat", 2: "dog"}, "not 0 to 1, each once; see 1"),
        ({0: "cat", "0": "dog"}, "not 0 to 1, each once"),
        ({"cat": 0, "dog": 0}, "not 0 to 1, each once"),
        ({"a": "cat"}, "neither .* nor"),
        (pd.Series(NAMES, index=["x", "y", "z"]), "an index that does not number them"),
        (pd.DataFrame({"name": NAMES}), "given as a table"),
        ({}, "No class names"),
        ([], "No class names"),
    ],
)
def test_what_has_no_clear_order_is_refused(names: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassNames(names)


def test_models_take_them_and_count_them() -> None:
    vit, count = build("vit").vit, int(str(TINY["num_classes"]))
    names = [f"n{index}" for index in range(count)]
    for given in (dict(enumerate(names)), np.array(names), pd.Series(names)):
        assert HookedViT(vit, class_names=given).class_names.names == tuple(names)  # type: ignore[arg-type]
    for wrong, message in ((set(names), "no order"), (names[1:], f"{count - 1} class names were given")):
        with pytest.raises(InputError, match=message):
            HookedViT(vit, class_names=wrong)  # type: ignore[arg-type]
