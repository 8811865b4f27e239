"""A model in float64, for computations that amplify rounding errors."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.models.base import HookedModel
from caap_lab.models.copies import copy_of
from caap_lab.models.device_dtype import has_float64
from caap_lab.models.watched import is_watched

Model = TypeVar("Model", bound=HookedModel)


def in_float64(model: Model) -> Model:
    """A copy of a model in float64, hooks included; the model itself if it is in float64 already.

    It is on the model's device, or on the CPU if the device has no float64.
    """
    if model.dtype == torch.float64:
        return model
    wide = copy_of(model)
    wide.to(model.device if has_float64(model.device) else torch.device("cpu"), torch.float64)
    for module in wide.modules():
        if isinstance(module, HookPoint) and is_watched(module):
            module.register_forward_hook(_widen)
    return wide


def _widen(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Convert what a hook returned, such as an activation saved from a float32 run, to the copy's format."""
    return output.to(inputs[0].device, inputs[0].dtype)
