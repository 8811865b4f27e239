"""Weights packed by torch for its integer kernels, as in dynamic quantisation."""

import weakref
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import nn

_serials: dict[int, tuple[weakref.ref[Any], int]] = {}
_count = count()


def packed_weights(parts: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, torch.ScriptObject]]:
    """Packed weights of named modules, with the names of their layers."""
    for name, module in parts:
        packed = vars(module).get("_packed_params")
        if isinstance(packed, torch.ScriptObject):
            yield name.removesuffix("._packed_params"), packed


def packed_serials(parts: Iterable[tuple[str, nn.Module]]) -> Iterator[int]:
    """A number for the packed weights of every layer, which changes when they are replaced.

    They cannot be changed in place, and reading them takes as long as a forward pass.
    """
    for _, packed in packed_weights(parts):
        known = _serials.get(id(packed))
        if known is None or known[0]() is not packed:  # Python gives ids out again
            known = _serials[id(packed)] = weakref.ref(packed), next(_count)
        yield known[1]
