"""Models with layers quantised by torch, which only support forward passes.

Dynamic quantisation scales a layer's input by its smallest and largest value, so that the rounding of each row depends
on the other rows of the batch.
"""

import torch
from torch import nn

from caap_lab.digests.packed import packed_weights
from caap_lab.errors import InputError
from caap_lab.modules import named_modules


def check_format(model: nn.Module, dtype: torch.dtype) -> None:
    """Raise InputError for a number format that quantised layers do not support.

    Raises:
        InputError: the model was converted to such a format.
    """
    if dtype != torch.float32 and (name := first_quantised(model)) is not None:
        raise InputError(f"{name} is quantised and needs float32, not {dtype}: call model.float().")


def why_no_gradient(model: nn.Module) -> str:
    """Why there is no gradient with respect to pixels; empty if no layer is quantised."""
    name = first_quantised(model)
    return "" if name is None else f"{name} is quantised, and torch cannot differentiate its kernels"


def first_quantised(model: nn.Module) -> str | None:
    """Name of the first quantised layer."""
    return next((name for name, _ in packed_weights(named_modules(model))), None)
