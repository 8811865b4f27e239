"""The state in which a model runs: one thread at a time, in evaluation mode, in the model's own number format."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.models.base import HookedModel

Function = TypeVar("Function", bound=Callable[..., Any])

_SECONDS_UNTIL_WARNING = 120.0

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""By timm's model, which several hooked models may share; not kept in it, so that it can be copied and pickled."""
_making = threading.Lock()
_precisions: list[str] = []
"""What cuDNN's convolutions were set to when each run in progress began; the first entry is the user's setting."""


@contextmanager
def held(model: "HookedModel") -> Iterator[None]:
    """Keep a model to this thread: hooks set on it here would change what another thread reads.

    Another thread waits; this one may hold the model again.
    """
    with _making:
        lock = _locks.setdefault(model.body, threading.RLock())
    if not lock.acquire(timeout=_SECONDS_UNTIL_WARNING):
        warnings.warn(
            f"{model.model_name} has been in use by another thread for {_SECONDS_UNTIL_WARNING:.0f} s, and this thread "
            "waits for it. Give each thread a copy.deepcopy(model), or leave hooks(...) before waiting for a thread.",
            stacklevel=3,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_eval(model: nn.Module) -> None:
    """Refuse a model in training mode."""
    if any(module.training for module in model.modules()):
        raise InputError("The model is in training mode, where dropout changes every run; call model.eval() first.")


@contextmanager
def running(model: "HookedModel") -> Iterator[None]:
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
            _full_convolutions(),
            torch.inference_mode(False) if kept else nullcontext(),
            torch.no_grad() if kept else nullcontext(),
        ):
            yield


@contextmanager
def _full_convolutions() -> Iterator[None]:
    """Keep cuDNN's convolutions of float32 in float32.

    By default torch lets them round to TF32, whose 10 bits move gradients of pixels by a percent. Matrix products are
    left as the caller wants them: there TF32 is off unless asked for.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # a class in the place of a module
    with _making:
        _precisions.append(convolutions.fp32_precision)
        convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _making:
            before = _precisions.pop()
            if not _precisions:
                convolutions.fp32_precision = before


def runs_model(function: Function) -> Function:
    """Let a function whose first argument is a hooked model run under `running`."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        from caap_lab.models.base import HookedModel

        model = args[0] if args else options.get("model")
        if not isinstance(model, HookedModel):
            return function(*args, **options)  # which refuses it in words of its own
        with running(model):
            return function(*args, **options)

    return cast(Function, run)


def check_gradients(model: nn.Module) -> None:
    """Refuse weights that torch does not differentiate through."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "The model was made under torch.inference_mode(), so no gradient can be taken through its weights; load "
            "it outside of inference mode."
        )
