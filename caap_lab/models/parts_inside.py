"""Supported models inside a user's module: which they are, and whether the module only forwards to one of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.models.base import HookedModel
from caap_lab.models.probe import logits_of
from caap_lab.models.unwrap import path_of
from caap_lab.models.width import evaluated

_MOST_DIFFERENCE = 1e-4
"""As a fraction of the largest logit, in float32; other kernels may run."""
_MOST_OF_SHORT_FORMATS = 1e-2


def find_inside(module: nn.Module, is_known: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    """Supported models inside a module, by name; of nested ones, the outermost."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        if name and not any(name.startswith(f"{outer}.") for outer in found) and is_known(part):
            found[name] = part
    return found


def passes_on_to(module: nn.Module, hooked: HookedModel) -> bool:
    """True if a module returns the outputs of the model inside it, on random images."""
    with _comparing(module):
        images = _random_images(hooked)
        return _same(_outputs(module, images), hooked(images))


def head_behind(module: nn.Module, name: str, hooked: HookedModel) -> str | None:
    """The part of a module that maps features of the model inside it to its outputs, as code; None if there is none."""
    if "." in name:
        return None
    others = {path_of(other): part for other, part in module.named_children() if other != name}
    if isinstance(module, nn.Sequential) and name.isdecimal():
        others = {f"model[{int(name) + 1}:]": module[int(name) + 1 :], **others}
    with _comparing(module):
        images = _random_images(hooked)
        expected, features = _outputs(module, images), hooked(images)
        heads = (path for path, part in others.items() if _same(_outputs(part, features), expected))
        return next(heads, None)


def _outputs(module: Any, x: Tensor) -> Tensor | None:
    """Logits of a module; None if it does not run or returns something else."""
    try:
        return logits_of(module(x), len(x))
    except Exception:  # user code may raise anything
        return None


def _same(given: Tensor | None, expected: Tensor | None) -> bool:
    if given is None or expected is None or given.shape != expected.shape:
        return False
    most = _MOST_DIFFERENCE if expected.dtype in (torch.float32, torch.float64) else _MOST_OF_SHORT_FORMATS
    return bool((given.double() - expected.double()).abs().max() <= most * expected.double().abs().max())


def _random_images(hooked: HookedModel) -> Float[Tensor, "2 3 height width"]:
    generator = torch.Generator(device="cpu").manual_seed(0)
    images = torch.randn(2, 3, *hooked.image_size, generator=generator, dtype=torch.float32, device="cpu")
    return images.to(hooked.device, hooked.dtype)


@contextmanager
def _comparing(module: nn.Module) -> Iterator[None]:
    """Context in evaluation mode and without compilation."""
    compiled = any(type(part).__name__ == "OptimizedModule" for part in module.modules())
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with torch.no_grad(), evaluated([module]), eager:
        yield
