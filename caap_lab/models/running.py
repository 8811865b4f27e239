"""The state in which a model runs: one thread at a time, evaluation mode, the model's own number format."""

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
from caap_lab.modules import modules

Function = TypeVar("Function", bound=Callable[..., Any])


def held(model: HookedModel) -> AbstractContextManager[None]:
    """Context in which only this thread may use a model: its hooks would affect other threads.

    Other threads wait; the same thread may enter it again.
    """
    return locked(model.body, model.model_name)


def check_eval(model: nn.Module) -> None:
    """Raise InputError for a model in training mode."""
    if any(module.training for module in modules(model)):
        raise InputError("The model is in training mode, where dropout changes every run; call model.eval() first.")


@contextmanager
def running(model: HookedModel) -> Iterator[None]:
    """Context that holds a model and runs it in a well-defined state, whatever the caller's state is.

    Autocast is off, and float32 products are computed in the model's format; see `products`. Under
    `torch.inference_mode()` tensors are created as under `torch.no_grad()`, so that they can be stored and used in a
    later backward pass.

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
    """Decorate a function whose first argument is a hooked model, so that it runs under `running`."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        model = args[0] if args else options.get("model")
        if not isinstance(model, HookedModel):
            return function(*args, **options)  # which raises its own error
        with running(model):
            return function(*args, **options)

    return cast(Function, run)


def check_gradients(model: HookedModel, what: str = "This method") -> None:
    """Raise InputError for a model that torch cannot differentiate.

    Raises:
        InputError: it has no gradient with respect to pixels, or its weights were created under
            `torch.inference_mode()`.
    """
    if reason := model.why_no_gradient:
        raise InputError(f"{what} needs gradients, but {model.model_name} has none ({reason}).")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "The model was created under torch.inference_mode(), so its weights cannot be used in a backward pass; "
            "load it outside of inference mode."
        )
