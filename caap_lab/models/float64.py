"""A model in float64, for what magnifies rounding."""

import copy
from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.models.base import HookedModel, is_watched
from caap_lab.models.device_dtype import has_float64

Model = TypeVar("Model", bound=HookedModel)


def in_float64(model: Model) -> Model:
    """A copy of a model in float64, hooks included; the model itself if it is in float64.

    It is on the model's device, or on the CPU where that has no float64.
    """
    if model.dtype == torch.float64:
        return model
    kept_runs = getattr(model, "kept_runs", None)
    copied = copy.deepcopy(model, {id(kept_runs): OrderedDict()})  # without the blank runs that are kept with it
    copied.to(model.device if has_float64(model.device) else torch.device("cpu"), torch.float64)
    for module in copied.modules():
        if isinstance(module, HookPoint) and is_watched(module):
            module.register_forward_hook(_widen)
    return copied


def _widen(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """What a hook put in place of an activation, such as one kept from a float32 run, as the copy computes."""
    return output.to(inputs[0].device, inputs[0].dtype)
