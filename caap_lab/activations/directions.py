"""Edits of activations along directions, as sources of patches: add a vector, project one out, swap two directions.

```python
steer = cl.Patch("resid_pre", 6, tokens=cl.tokens.patches(), source=cl.directions.add(vector, 3.0))
blind = cl.Patch("resid_pre", range(6, 12), source=cl.directions.project_off(probe))
```

A vector has the width of the activation's last axis (d_model of the residual stream, d_head of z, d_mlp of neurons).
With more axes it is one vector per token, [token, width], or per image, [batch, 1, width] or [batch, token, width]; at
hook points with heads, [head, width] and so on.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.checks import is_number
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import all_finite, has_float64

__all__ = ["add", "project_off", "swap"]
Vector = Float[Tensor, "*axes width"] | Float[np.ndarray, "*axes width"]


def __dir__() -> list[str]:
    """Names for completion: only the edits."""
    return __all__


@dataclass(frozen=True, eq=False)
class DirectionEdit(ABC):
    """A source of a patch that changes the activation only along directions."""

    vectors: tuple[Tensor, ...]

    @property
    @abstractmethod
    def replacement(self) -> str:
        """Name of the edit in results."""

    @abstractmethod
    def __call__(self, activation: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The changed activation; the given one is unchanged."""

    def check(self, name: str, shape: tuple[int, ...], batch: int) -> None:
        """Raise InputError for vectors that do not fit an activation.

        Args:
            name: Name of the hook point.
            shape: Shape of the activation for one image.
            batch: Number of images.
        """
        for vector in self.vectors:
            full = (batch, *shape)[len(shape) + 1 - vector.ndim :] if vector.ndim <= len(shape) + 1 else ()
            fits = len(full) == vector.ndim and vector.shape[-1] == shape[-1]
            if not fits or any(own not in (1, whole) for own, whole in zip(vector.shape, full, strict=True)):
                raise InputError(
                    f"A vector of {list(vector.shape)} does not fit {name}, whose activations are "
                    f"{[batch, *shape]}: give {shape[-1]} values, or more axes that are of these sizes or 1."
                )

    def of_rows(self, rows: slice | None, n_axes: int) -> "DirectionEdit":
        """The edit for some images of a batch.

        Args:
            rows: These images; None for all.
            n_axes: Axes of the activation, batch axis included.
        """
        if rows is None:
            return self
        own = tuple(v[rows] if v.ndim == n_axes and len(v) > 1 else v for v in self.vectors)
        return replace(self, vectors=own)

    def _wide(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation and the vectors in float64 if the device has it, for exact products."""
        dtype = torch.float64 if has_float64(activation.device) else torch.float32
        return tuple(x.to(activation.device, dtype) for x in (activation, *self.vectors))


@dataclass(frozen=True, eq=False)
class _Add(DirectionEdit):
    amount: float

    @property
    def replacement(self) -> str:
        return f"{self.amount:g} times a vector added"

    def __call__(self, activation: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        (vector,) = self.vectors
        return activation + self.amount * vector.to(activation)


@dataclass(frozen=True, eq=False)
class _ProjectOff(DirectionEdit):
    @property
    def replacement(self) -> str:
        count = len(self.vectors)
        return "one direction projected off" if count == 1 else f"a subspace of {count} directions projected off"

    def __call__(self, activation: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        wide, *vectors = self._wide(activation)
        basis = torch.stack(torch.broadcast_tensors(*map(_unit, vectors)), dim=-2)  # [..., direction, width]
        parts = torch.linalg.pinv(basis)  # which also works for linearly dependent vectors
        if basis.ndim == 2:
            return (wide - wide @ parts @ basis).to(activation)
        return (wide - (wide[..., None, :] @ parts @ basis)[..., 0, :]).to(activation)


@dataclass(frozen=True, eq=False)
class _Swap(DirectionEdit):
    @property
    def replacement(self) -> str:
        return "two directions swapped"

    def __call__(self, activation: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        wide, one, other = self._wide(activation)
        away = _unit(_unit(one) - _unit(other))
        return (wide - 2 * (wide * away).sum(dim=-1, keepdim=True) * away).to(activation)


def add(vector: Vector, amount: float = 1.0) -> DirectionEdit:
    """An edit that adds a vector times an amount: x + amount * vector.

    ```python
    steer = cl.Patch("resid_pre", 4, source=cl.directions.add(vector, 3.0))
    logits = cl.run_patched(model, images, steer)
    ```

    Args:
        vector: See `caap_lab.directions`; not normalised.
        amount: Factor of the vector.
    """
    if not is_number(amount) or not np.isfinite(amount):
        raise InputError(f"amount={amount!r} must be a number.")
    return _Add((_checked(vector, zero=True),), float(amount))


def project_off(vector: Vector, *others: Tensor | np.ndarray) -> DirectionEdit:
    """An edit that removes the components along one or several vectors: x - V^+ V x.

    ```python
    blind = cl.Patch("resid_pre", range(4, 8), source=cl.directions.project_off(vector))
    logits = cl.run_patched(model, images, blind)
    ```

    Several vectors stand for the subspace that they span; they need not be orthogonal or independent.

    Args:
        vector: See `caap_lab.directions`; its length does not matter.
        *others: Further vectors: `project_off(*matrix)` uses the rows of a matrix [direction, width].
    """
    return _ProjectOff(tuple(_checked(one) for one in (vector, *others)))


def swap(one: Vector, other: Vector) -> DirectionEdit:
    """An edit that swaps the components along two directions, whose lengths do not matter.

    ```python
    swapped = cl.Patch("resid_pre", 4, source=cl.directions.swap(vector, other))
    logits = cl.run_patched(model, images, swapped)
    ```

    With unit vectors u and v, x = a u + b v + rest becomes b u + a v + rest, the rest being orthogonal to both. This is
    the reflection that maps u to v, x - 2 (d x) d with d = (u - v) / |u - v|, for any angle between them except 0.

    Args:
        one: See `caap_lab.directions`.
        other: The other direction.
    """
    first, second = _checked(one), _checked(other)
    if first.shape[-1] != second.shape[-1]:
        raise InputError(f"Two directions of {first.shape[-1]} and {second.shape[-1]} values cannot be swapped.")
    apart = (_unit(first.double().cpu()) - _unit(second.double().cpu())).norm(dim=-1)
    if bool((apart < 1e-6).any()):
        raise InputError("The two directions are the same, so there is nothing to swap.")
    return _Swap((first, second))


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)


def _checked(vector: Any, zero: bool = False) -> Tensor:
    """A copy of a vector as a tensor."""
    given = torch.from_numpy(np.ascontiguousarray(vector)) if isinstance(vector, np.ndarray) else vector
    if not isinstance(given, Tensor) or not given.is_floating_point() or given.ndim == 0:
        kind = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(vector).__name__
        raise InputError(f"A direction is a floating-point tensor or array [width] or with more axes, not {kind}.")
    if not all_finite(given):
        raise InputError("The direction holds NaN or infinity.")
    if not zero and bool((given == 0).all(dim=-1).any()):
        raise InputError("The direction is zero, so it has no component to remove.")
    return given.detach().clone()
