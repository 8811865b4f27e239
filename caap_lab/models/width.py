"""The output width of a head, measured by running it: a head may be replaced without updating timm's model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from caap_lab.digests.structure import read_modules
from caap_lab.digests.tensors import raw_bytes
from caap_lab.errors import InputError

Found = TypeVar("Found")


class Measured(Generic[Found]):
    """A measurement on a chain of modules, repeated when the chain has changed."""

    def __init__(self) -> None:
        self._measured: tuple[list[Any], Found] | None = None

    def of(self, chain: Sequence[nn.Module], settings: Sequence[Any], measure: Callable[[], Found]) -> Found:
        """The result of `measure` for these modules and settings."""
        # The modules themselves are stored, not their ids, which Python reuses.
        parts: list[Any] = [part for module in chain for part in module.modules()]
        text, others = read_modules(chain)
        held = (t for module in chain for t in (*module.parameters(), *module.buffers()))
        facts = [*parts, *settings, text, *map(_fact, (*held, *others))]
        if self._measured is None or not _same(facts, self._measured[0]):
            self._measured = facts, measure()
        return self._measured[1]


def _fact(tensor: Tensor) -> tuple[Any, ...]:
    """What of a tensor may determine a width: its shape, and its numbers where they may choose outputs."""
    chooses = not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized)
    return tuple(tensor.shape), raw_bytes(tensor).tobytes() if chooses else b""


def output_width(chain: Sequence[nn.Module], features: int, like: Tensor, what: str = "head") -> int:
    """Number of values per image that a chain of modules outputs for `features` inputs.

    Args:
        chain: Modules, the last of which is the head.
        features: Number of inputs of the first module.
        like: A tensor on the modules' device, in their number format.
        what: Name of the last module in errors.

    Raises:
        InputError: the head does not accept these features, or does not return [batch, class].
    """
    head = type(chain[-1]).__name__
    x: Any = torch.zeros(1, features, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad(), evaluated(chain):
            for module in chain:
                # A head may have another format or device until the model that it was given to is moved.
                own = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), like)
                x = module.forward(x.to(own.device, own.dtype))  # without hooks that a method may have set
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"The {what} ({head}) cannot read the model's features, {features} values per image: {error}. Give it "
            f"{features} inputs."
        ) from None
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) != 1 or not x.shape[1]:
        result = (
            "expected logits [batch, class], [batch, 1] for one output" if what == "head" else "expected [batch, width]"
        )
        shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"The {what} ({head}) returns {shape} for one image; {result}.")
    return x.shape[1]


def passes_on(module: nn.Module) -> bool:
    """True for a head that does not classify: an Identity, perhaps with dropouts."""
    leaves = (part for part in module.modules() if not list(part.children()))
    return all(isinstance(part, (nn.Identity, nn.Dropout, nn.Sequential, nn.Flatten)) for part in leaves)


def _same(now: list[Any], before: list[Any]) -> bool:
    return len(now) == len(before) and all(
        a is b if isinstance(a, nn.Module) else a == b for a, b in zip(now, before, strict=True)
    )


@contextmanager
def evaluated(chain: Sequence[nn.Module]) -> Iterator[None]:
    """Context with modules in evaluation mode, so that measuring changes no statistics and draws no random numbers."""
    training = [part for module in chain for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
