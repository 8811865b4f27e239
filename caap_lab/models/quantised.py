"""Models whose layers torch has quantised: they run forwards only.

Dynamic quantisation scales a layer's input by the smallest and largest number in it, so that every row of a batch is
rounded by what the others hold.
"""

import torch
from torch import nn

from caap_lab.digests.packed import packed_weights
from caap_lab.errors import InputError


def images_at_once(model: nn.Module, batch_size: int) -> int:
    """How many images may share a run, of at most `batch_size`: a quantised model would round each by the others."""
    return batch_size if _first(model) is None else 1


def check_format(model: nn.Module, dtype: torch.dtype) -> None:
    """Refuse another number format than the one that quantised layers read.

    Raises:
        InputError: the model was moved to one.
    """
    if dtype != torch.float32 and (name := _first(model)) is not None:
        raise InputError(f"{name} is quantised and reads float32, not {dtype}: call model.float().")


def why_no_gradient(model: nn.Module) -> str:
    """What stands in the way of a gradient by pixels; empty if no layer is quantised."""
    name = _first(model)
    return "" if name is None else f"{name} is quantised, and torch takes no gradient through its kernels"


def _first(model: nn.Module) -> str | None:
    """The first quantised layer's name."""
    return next((name for name, _ in packed_weights(model)), None)
