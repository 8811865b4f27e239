"""Ways to choose tokens: a grid cell, a box, an object mask, a neighbourhood, the prefix.

A choice does not depend on a model; `indices(spec)` gives its token numbers in a model (prefix tokens first, then
patches row by row).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS as NEIGHBOURHOODS
from caap_lab.models.neighbourhoods import find_neighbourhood
from caap_lab.models.spec import ViTSpec

if TYPE_CHECKING:
    from caap_lab.models.base import HookedModel

__all__ = ["NEIGHBOURHOODS", "all", "box", "cell", "cls", "mask", "neighbourhood", "patches", "prefix"]


def __dir__() -> list[str]:
    """Names for completion: only the choices."""
    return __all__


@dataclass(frozen=True)
class Tokens:
    """A choice of tokens."""

    label: str
    choose: Callable[[ViTSpec], list[int]]

    def indices(self, spec: ViTSpec) -> list[int]:
        """Token numbers in a model with this spec.

        Raises:
            InputError: the choice lies outside the model's grid, or is empty.
        """
        tokens = self.choose(spec)
        if not tokens:
            raise InputError(f"{self.label} chooses no token of a {spec.grid[0]} x {spec.grid[1]} grid.")
        return tokens

    def __repr__(self) -> str:
        """The call that creates it."""
        return f"tokens.{self.label}"


def cell(row: int, col: int) -> Tokens:
    """The patch at a row and column of the grid.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.cell(2, 5))
    ```
    """
    return Tokens(f"cell({row}, {col})", lambda spec: [patch_token(spec, row, col)])


def box(top: int, left: int, bottom: int, right: int) -> Tokens:
    """The patches in rows top to bottom - 1 and columns left to right - 1, as in Python slices.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.box(0, 0, 2, 4))    # two rows of four patches
    ```
    """

    def choose(spec: ViTSpec) -> list[int]:
        if not (0 <= top < bottom <= spec.grid[0] and 0 <= left < right <= spec.grid[1]):
            raise InputError(
                f"box({top}, {left}, {bottom}, {right}) is not inside the {spec.grid[0]} x {spec.grid[1]} grid; "
                "give top, left, bottom, right with the last two exclusive."
            )
        return [patch_token(spec, r, c) for r in range(top, bottom) for c in range(left, right)]

    return Tokens(f"box({top}, {left}, {bottom}, {right})", choose)


def neighbourhood(row: int, col: int, kind: str = "box1") -> Tokens:
    """A patch and its neighbours: "none", "cross1", "box1", "diamond2", "box2" or a registered name.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.neighbourhood(2, 5, "cross1"))
    ```

    It is clipped at the border of the grid.
    """
    offsets = find_neighbourhood(kind)

    def choose(spec: ViTSpec) -> list[int]:
        patch_token(spec, row, col)  # raises InputError for a centre outside the grid
        rows, cols = spec.grid
        near = [(row + dr, col + dc) for dr, dc in offsets]
        return [patch_token(spec, r, c) for r, c in near if 0 <= r < rows and 0 <= c < cols]

    return Tokens(f"neighbourhood({row}, {col}, {kind!r})", choose)


def mask(mask: Any, threshold: float = 0.5) -> Tokens:
    """The patches of which at least a fraction `threshold` lies in a mask.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.mask(model.preprocessing.mask(mask)))
    ```

    Args:
        mask: Array or tensor [H, W] of the model's input size (see `model.preprocessing.mask`) or of its grid size;
            non-zero is inside.
        threshold: Fraction of a patch's pixels, above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must be above 0 and at most 1, not {threshold}.")
    array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError("The mask holds NaN.")
    array = array != 0

    def choose(spec: ViTSpec) -> list[int]:
        share = mask_share(array, spec).reshape(-1)
        return [spec.n_prefix + int(i) for i in np.flatnonzero(share >= threshold)]

    return Tokens(f"mask({int(array.sum())} of {array.size} px, threshold={threshold})", choose)


def prefix() -> Tokens:
    """All prefix tokens: class, distillation, registers.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.prefix())
    ```
    """
    return Tokens("prefix()", lambda spec: list(range(spec.n_prefix)))


def cls() -> Tokens:
    """The class token.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.cls())
    ```
    """
    return Tokens("cls()", lambda spec: [i for i, role in enumerate(spec.prefix) if role == "cls"])


def patches() -> Tokens:
    """All patch tokens.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.patches())
    ```
    """
    return Tokens("patches()", lambda spec: list(range(spec.n_prefix, spec.n_tokens)))


def all() -> Tokens:
    """Every token.

    ```python
    cl.Patch("resid_pre", 3, tokens=cl.tokens.all())
    ```
    """
    return Tokens("all()", lambda spec: list(range(spec.n_tokens)))


def patch_token(spec: ViTSpec, row: int, col: int) -> int:
    """Token number of the patch at a grid cell."""
    rows, cols = spec.grid
    if not (0 <= row < rows and 0 <= col < cols):
        raise InputError(f"Cell ({row}, {col}) is outside the {rows} x {cols} grid (rows and columns start at 0).")
    return spec.n_prefix + row * cols + col


Numbers = Sequence[int] | Int[Tensor | np.ndarray, " token"] | Bool[Tensor | np.ndarray, " token"]
TokensLike = Tokens | int | Numbers | None
"""Tokens as users give them, the same for all images: a choice, token numbers, booleans, or None for all."""


def token_numbers(spec: ViTSpec, given: TokensLike) -> list[int]:
    """Token numbers of a choice, in its order, without repeats.

    Raises:
        InputError: there are no such tokens, or none is chosen.
    """
    if given is None:
        return list(range(spec.n_tokens))
    if isinstance(given, Tokens):
        return given.indices(spec)
    chosen = np.atleast_1d(np.asarray(given.cpu() if isinstance(given, Tensor) else given))
    if chosen.dtype == bool and chosen.shape == (spec.n_tokens,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise InputError(
            f"tokens must be a choice from cl.tokens, token numbers, or {spec.n_tokens} booleans, and choose at least "
            "one; omit tokens to select all of them."
        )
    numbers = list(dict.fromkeys(chosen.tolist()))
    wrong = [number for number in numbers if not 0 <= number < spec.n_tokens]
    if wrong:
        raise InputError(f"Token {wrong[0]} does not exist: this model has tokens 0 to {spec.n_tokens - 1}.")
    return numbers


def mask_share(mask: np.ndarray, spec: "ViTSpec | HookedModel") -> np.ndarray:
    """Fraction [rows, columns] of each patch, or cell of a CNN, inside a boolean mask [H, W] of input or grid size."""
    if mask.shape == spec.grid:
        return mask.astype(float)
    if mask.shape != spec.image_size:
        raise InputError(
            f"The mask is {' x '.join(map(str, mask.shape))}; the model's input is {spec.image_size[0]} x "
            f"{spec.image_size[1]} (and its grid {spec.grid[0]} x {spec.grid[1]}). For a mask of the photo's size "
            "call model.preprocessing.mask(mask) first."
        )
    (rows, cols), (height, width) = spec.grid, spec.patch_size
    return mask[: rows * height, : cols * width].reshape(rows, height, cols, width).mean(axis=(1, 3))
