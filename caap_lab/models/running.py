"""The state in which a model runs: one thread at a time, in evaluation mode, in the model's own number format."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.lock import locked
from caap_lab.models.products import in_tf32, products

Function = TypeVar("Function", bound=Callable[..., Any])


def held(model: HookedModel) -> AbstractContextManager[None]:
    """Keep a model to this thread: hooks set on it here would change what another thread reads.

    Another thread waits; this one may hold the model again.
    """
    return locked(model.body, model.model_name)


def check_eval(model: nn.Module) -> None:
    """Refuse a model in training mode."""
    if any(module.training for module in model.modules()):
        raise InputError("The model is in training mode, where dropout changes every run; call model.eval() first.")


@contextmanager
def running(model: HookedModel) -> Iterator[None]:
    """Hold a model and run it in one well-defined state, whatever the caller's is.

    Autocast is off, and products of float32 are made in the model's format, see `products`. Under
    `torch.inference_mode()` tensors are made as under `torch.no_grad()`, so that they can be kept and differentiated
    through later.

    Raises:
        InputError: the model is in training mode.
    """
    with held(model):
        check_eval(model)
        kept = torch.is_inference_mode_enabled()
        with (
            torch.autocast(model.device.type, enabled=False),
            products(in_tf32(model.body)),
            torch.inference_mode(False) if kept else nullcontext(),
            torch.no_grad() if kept else nullcontext(),
        ):
            yield


def runs_model(function: Function) -> Function:
    """Let a function whose first argument is a hooked model run under `running`."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        model = args[0] if args else options.get("model")
        if not isinstance(model, HookedModel):
            return function(*args, **options)  # which refuses it in words of its own
        with running(model):
            return function(*args, **options)

    return cast(Function, run)


def check_gradients(model: HookedModel, what: str = "This method") -> None:
    """Refuse a model that torch does not differentiate through.

    Raises:
        InputError: it gives no gradient by pixels, or its weights were made under `torch.inference_mode()`.
    """
    if reason := model.why_no_gradient:
        raise InputError(f"{what} takes gradients, and {model.model_name} gives none ({reason}).")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "The model was made under torch.inference_mode(), so no gradient can be taken through its weights; load "
            "it outside of inference mode."
        )
