"""Hooks on a model's modules, those of TransformerLens and torch's own."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.modules import named_modules


def _hooks_of(module: nn.Module) -> tuple[Mapping[int, Any], ...]:
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def n_hooks(module: nn.Module) -> int:
    """Number of torch hooks on a module, those of TransformerLens included."""
    return sum(map(len, _hooks_of(module)))


def is_watched(module: nn.Module) -> bool:
    """True if a hook is on a hook point or module, added through TransformerLens or torch."""
    return any(_hooks_of(module))


def check_no_hooks(model: nn.Module, what: str) -> None:
    """Raise InputError if a model has any hooks.

    Raises:
        InputError: it has; the message names the hooks and how to remove them.
    """
    found = list(named_modules(model))
    points = [point for _, point in found if isinstance(point, HookPoint)]
    permanent = any(hook.is_permanent for point in points for hook in (*point.fwd_hooks, *point.bwd_hooks))
    torch_hooks = [name for name, part in found if is_watched(part) and part not in points]
    # a hook point may also hold torch's own hooks, which reset_hooks does not remove
    torch_hooks += [point.name or "" for point in points if n_hooks(point) > len(point.fwd_hooks + point.bwd_hooks)]
    ways = []
    if any(point.fwd_hooks or point.bwd_hooks for point in points):
        ways.append(f"call model.reset_hooks({'including_permanent=True' if permanent else ''})")
    if torch_hooks:
        ways.append(f"remove the torch hook on {torch_hooks[0]} with handle.remove()")
    if ways:
        raise InputError(f"The model has hooks, which {what} would not run as intended; {' and '.join(ways)} first.")
