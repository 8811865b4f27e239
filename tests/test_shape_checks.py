"""Shapes in the package's signatures are checked while its tests run; functions without one stay as they are."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import caap_lab as cl
from helpers.shapes import ShapeError, check_package

TOY = """
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

Image = Float[Tensor, "3 height width"]


def mean(image: Image, weights: Float[Tensor, "height width"] | None = None) -> Float[Tensor, " height"]:
    return image.mean((0, 2)) if image.sum() >= 0 else image


def refusing(mask: Bool[np.ndarray, "row col"]) -> int:
    if mask.dtype != bool:
        raise ValueError("a mask has to be bool")
    return len(mask)


def several(images: Sequence[Image], *more: int, key: str = "", **rest: int) -> tuple[int, Image]:
    return len(images), images[0]


def plain(image: Tensor, count: int, then: Callable[[Image], int] | None = None) -> "Tensor":
    return image


@contextlib.contextmanager
def opened(image: Image) -> Iterator[Image]:
    yield image


def outer() -> object:
    def inner(image: Image) -> Image:
        return image
    return inner


@dataclass(frozen=True)
class Map:
    scores: Float[Tensor, "row col"]
    all_scores: Float[Tensor, "row col classes"] | None = None

    def __post_init__(self) -> None:
        if self.scores.isnan().any():
            raise ValueError("scores are NaN")

    @property
    def first(self) -> Float[Tensor, " col"]:
        return self.scores if len(self.scores) > 2 else self.scores[0]

    @classmethod
    def made(cls, scores: Float[Tensor, "row col"]) -> "Map":
        return cls(scores)

    @staticmethod
    def total(scores: Float[Tensor, "row col"]) -> float:
        return float(scores.sum())


@dataclass
class Bare:
    scores: Tensor
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "toy_package").mkdir()
    (tmp_path / "toy_package" / "__init__.py").write_text("")
    (tmp_path / "toy_package" / "maps.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    check_package("toy_package")
    found = importlib.import_module("toy_package.maps")
    assert not list(tmp_path.rglob("*.pyc"))  # nobody who imports it without checks gets checked code
    yield found
    del sys.modules["toy_package"], sys.modules["toy_package.maps"]


IMAGE = torch.ones(3, 4, 5)


def test_wrong_shapes_are_caught(toy: ModuleType) -> None:
    assert torch.equal(toy.mean(IMAGE, torch.ones(4, 5)), torch.ones(4))
    with pytest.raises(ShapeError, match=r"toy_package\.maps\.mean: image is not .*Given: .*\(2, 4, 5\)"):
        toy.mean(IMAGE[0].expand(2, 4, 5))
    with pytest.raises(ShapeError, match="weights is not"):
        toy.mean(IMAGE, torch.ones(5, 4))  # an axis's name is one number in a whole call
    with pytest.raises(ShapeError, match="return is not"):
        toy.mean(-IMAGE)
    with pytest.raises(ShapeError, match=r"image is not .*torch\.int64"):
        toy.outer()(IMAGE.long())
    with pytest.raises(ShapeError, match="images is not"):
        toy.several([IMAGE[0]])
    with pytest.raises(ShapeError, match="image is not"):
        toy.outer()(IMAGE[0])
    with pytest.raises(ShapeError, match="image is not"), toy.opened(IMAGE[0]):
        pass
    assert toy.several([IMAGE], 1, 2, key="a", other=3)[0] == 1


def test_what_passed_once_does_not_excuse_another_form(toy: ModuleType) -> None:
    for _ in range(2):
        toy.mean(IMAGE)
        toy.mean(image=IMAGE, weights=None)
        with pytest.raises(ShapeError):
            toy.mean(IMAGE.double()[:2])
        with pytest.raises(ShapeError):
            toy.mean(IMAGE, IMAGE)


def test_dataclasses_and_their_methods(toy: ModuleType) -> None:
    scores = torch.ones(2, 3)
    assert torch.equal(toy.Map(scores, all_scores=torch.ones(2, 3, 7)).first, torch.ones(3))
    for wrong in ((scores[0],), (scores, torch.ones(3, 2, 7)), (scores.int(),)):
        with pytest.raises(ShapeError, match=r"maps\.Map: (scores|all_scores) is not"):
            toy.Map(*wrong)
    with pytest.raises(ShapeError, match=r"Map\.first: return is not"):
        _ = toy.Map(torch.ones(3, 3)).first
    with pytest.raises(ShapeError, match="scores is not"):
        toy.Map.made(scores[0])
    with pytest.raises(ShapeError, match="scores is not"):
        toy.Map.total(scores[0])


def test_a_functions_own_refusal_comes_first(toy: ModuleType) -> None:
    with pytest.raises(ValueError, match="has to be bool"):
        toy.refusing(np.ones((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        toy.Map(torch.full((3,), torch.nan))


def test_what_has_no_shape_is_untouched(toy: ModuleType) -> None:
    assert not hasattr(toy.plain, "__wrapped__") and not hasattr(toy.Bare.__init__, "__wrapped__")
    assert hasattr(toy.mean, "__wrapped__") and hasattr(toy.Map.__init__, "__wrapped__")
    toy.plain("no tensor", None)
    toy.Bare("no tensor")
    toy.refusing(np.ones((2, 3), bool))
    assert toy.outer()("no tensor") == "no tensor"  # other types are for mypy
    assert toy.mean.__annotations__ == toy.mean.__wrapped__.__annotations__  # hints are read elsewhere, too


def test_the_whole_package_is_checked() -> None:
    with pytest.raises(RuntimeError, match="caap_lab is imported already"):
        check_package("caap_lab")
    with pytest.raises(ShapeError, match="scores is not"):
        cl.AttributionMap(torch.ones(4), 0, "a", "by hand", "logit", "signed", {}, "m", "", torch.zeros(8, 8, 3).byte())
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "caap_lab"]
    assert len(modules) > 50
    for module in modules:
        assert module.__spec__ is not None and type(module.__spec__.loader).__module__ == "helpers.shapes", module
