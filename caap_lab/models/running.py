"""The state in which a model runs: one thread at a time, in evaluation mode, in the model's own number format."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.lock import locked

Function = TypeVar("Function", bound=Callable[..., Any])

_setting = threading.Lock()
_precisions: list[str] = []
"""What cuDNN's convolutions were set to when each run in progress began; the first entry is the user's setting."""


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

    Autocast is off, and so is TF32 in convolutions. Under `torch.inference_mode()` tensors are made as under
    `torch.no_grad()`, so that they can be kept and differentiated through later.

    Raises:
        InputError: the model is in training mode.
    """
    with held(model):
        check_eval(model)
        kept = torch.is_inference_mode_enabled()
        with (
            torch.autocast(model.device.type, enabled=False),
            full_convolutions(),
            torch.inference_mode(False) if kept else nullcontext(),
            torch.no_grad() if kept else nullcontext(),
        ):
            yield


@contextmanager
def full_convolutions() -> Iterator[None]:
    """Keep cuDNN's convolutions of float32 in float32.

    By default torch lets them round to TF32, whose 10 bits move gradients of pixels by a percent. Matrix products are
    left as the caller wants them: there TF32 is off unless asked for.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # a class in the place of a module
    with _setting:
        _precisions.append(convolutions.fp32_precision)
        convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _setting:
            before = _precisions.pop()
            if not _precisions:
                convolutions.fp32_precision = before


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
