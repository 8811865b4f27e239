"""What must be as it was after a method has run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from caap_lab.models.base import HookedModel


@contextmanager
def untouched(model: HookedModel, images: Tensor) -> Iterator[None]:
    """Asserts, also after an error, that a run left no hook, gradient, switch or random number behind.

    Gradients that the caller has in the parameters stay the same tensors with the same values.
    """
    marks = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = marks[name]
    before = images.clone()
    state = torch.random.get_rng_state()
    flags = _flags(model)
    try:
        yield
    finally:
        assert not model.has_hooks()
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
        for name, parameter in model.named_parameters():
            assert parameter.grad is marks[name] and bool((parameter.grad == 1).all())
            parameter.grad = None
        assert _flags(model) == flags
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(images, before) and not images.requires_grad and images.grad is None


def _flags(model: HookedModel) -> list[object]:
    """What modules and parameters are switched to."""
    switches = [(m.training, getattr(m, "fused_attn", None), "forward" in vars(m)) for m in model.modules()]
    return [switches, [parameter.requires_grad for parameter in model.parameters()]]
