"""A model's modules and tensors, for checks in every call.

torch's own lists come from nested generators, which take several milliseconds for a ViT of 12 blocks.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from torch import Tensor, nn


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What `model.named_modules()` gives, in the same order: each module once, under its first name."""
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    seen = set()
    while waiting:
        name, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield name, module
        if module._modules:
            prefix = f"{name}." if name else ""
            waiting += [(prefix + key, child) for key, child in reversed(module._modules.items()) if child is not None]


def modules(model: nn.Module) -> Iterator[nn.Module]:
    """Each module of a model once."""
    return (module for _, module in named_modules(model))


def tensors(parts: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers of modules, their children's not included, each once."""
    found = (tensor for part in parts for tensor in chain(part._parameters.values(), part._buffers.values()))
    return list({id(tensor): tensor for tensor in found if tensor is not None}.values())
