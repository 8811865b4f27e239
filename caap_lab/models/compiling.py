"""Blocks through torch.compile, in models loaded or wrapped with `compile=True`.

Blocks of one structure are compiled once for the process, whatever their weights: a model, another checkpoint of it and
a copy of it share one compilation. A block runs eagerly where a hook is on it or on a module inside it, and where
derivatives are recorded: a compiled block would compute the gradients of all weights as well.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

from caap_lab.errors import InputError
from caap_lab.models.base import KINDS, HookedModel
from caap_lab.models.moved_neurons import MoveNeurons
from caap_lab.models.quantised import why_no_gradient
from caap_lab.models.watched import is_watched

Step = TypeVar("Step", bound=Callable[..., Any])

_MOST_VARIANTS = 256
"""Compilations of one step in a process; a structure needs two, for one image and for several."""
_INSTEAD = {
    "cnn": "each of its blocks has sizes of its own, and compiling all of them takes minutes. Omit compile=True.",
    "black_box": "its module runs as it is. Compile the module before it is wrapped, module.compile().",
}
"""Why blocks of some kinds of models are not compiled, and what to do."""


def wants_compiled(compile: bool) -> bool:
    """The value of an option `compile`.

    Raises:
        InputError: it is neither True nor False, such as the text "False".
    """
    if not isinstance(compile, bool):
        raise InputError(f"compile={compile!r} is neither True nor False.")
    return compile


def compile_blocks(model: HookedModel) -> None:
    """Make a model run its blocks through torch.compile from now on.

    Raises:
        InputError: its blocks cannot be compiled, or no compiler is there; the message says what is missing.
    """
    if model.kind in _INSTEAD:
        kind, instead = KINDS[model.kind][0], _INSTEAD[model.kind]
        raise InputError(f"compile=True is not possible for {model.model_name}, a {kind}: {instead}")
    if why_no_gradient(model.body):
        raise InputError(f"compile=True is not possible for {model.model_name}, which has quantised layers. Omit it.")
    check_compiler(model.device)
    model.compiled = True


def check_compiler(device: torch.device) -> None:
    """Raise InputError if torch.compile lacks something on a device, which it would say only at the first run.

    Raises:
        InputError: the message lists what is missing.
    """
    missing = []
    if device.type == "cuda":
        if find_spec("triton") is None:
            missing.append("Triton (pip install triton)")
        if sys.platform != "win32" and _no_program(os.environ.get("CC"), "gcc", "clang"):
            missing.append("a C compiler (gcc or clang; the environment variable CC can name another)")
    elif device.type == "cpu":
        usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
        if _no_program(os.environ.get("CXX", usual)):
            missing.append(f"a C++ compiler ({usual}; the environment variable CXX can name another)")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        missing.append(f"Python's headers ({headers / 'Python.h'}; Debian and Ubuntu have them in python3-dev)")
    if missing:
        raise InputError(f"compile=True needs {' and '.join(missing)}. Install what is missing, or omit compile=True.")


def _no_program(*names: str | None) -> bool:
    return not any(name and shutil.which(name) for name in names)


def compiled(step: Step, *parts: nn.Module) -> Step:
    """A step of a block through torch.compile, or the step itself where it has to run eagerly: see the module's text.

    Args:
        step: A function of the block, its hook points and tensors.
        parts: The modules that the step calls.
    """
    return step if torch.is_grad_enabled() or _is_observed() or _runs_eagerly(parts) else _compiled(step)


def _is_observed() -> bool:
    """Whether something sees every operation or module call, which a compiled block would hide from it.

    A dispatch mode such as FlopCounterMode, forward-mode derivatives, or torch's hooks on all modules.
    """
    derived = forward_ad._current_level >= 0  # also within torch.func.jvp
    return derived or _get_current_dispatch_mode() is not None or bool(_has_any_global_hook())


def _runs_eagerly(parts: tuple[nn.Module, ...]) -> bool:
    """Whether a hook is on any of the modules or inside them, or a module that torch.compile cannot trace."""
    stack: list[nn.Module | None] = list(parts)
    while stack:  # `modules()` would take most of the time that a compiled block saves
        part = stack.pop()
        if part is not None:
            if is_watched(part) or isinstance(part, MoveNeurons):
                return True
            stack.extend(part._modules.values())
    return False


@cache
def _compiled(step: Step) -> Step:
    from torch._dynamo.exc import TorchDynamoException  # seconds to import

    # Without graph breaks: a part that cannot be compiled is an error, and never runs eagerly unseen. Numbers of images
    # and rows are variables, so that the last batch of a run does not compile again.
    run = torch.compile(  # type: ignore[call-overload]  # torch's stub lacks the limit
        step, fullgraph=True, dynamic=True, recompile_limit=_MOST_VARIANTS
    )

    @wraps(step)
    def call(*given: Any) -> Any:
        try:
            # Detached: otherwise a view would be compiled again for every shape of the tensor that it is a view of.
            return run(*(part.detach() if isinstance(part, Tensor) else part for part in given))
        except TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(
                f"torch.compile failed on a block of this model: {reason} Load or wrap it without compile=True."
            ) from error

    return cast(Step, call)
