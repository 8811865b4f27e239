"""Wrappers that only pass on to the model in them: compiled, parallel, averaged and adapted models."""

from typing import Any

from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.base import is_watched

_SHELLS = {
    ("torch", "OptimizedModule"): "_orig_mod",
    ("torch", "DataParallel"): "module",
    ("torch", "DistributedDataParallel"): "module",
    ("torch", "AveragedModel"): "module",
    ("timm", "ModelEma"): "ema",
    ("timm", "ModelEmaV2"): "module",
    ("timm", "ModelEmaV3"): "module",
    ("peft", "PeftModel"): "base_model",
    ("peft", "PeftMixedModel"): "base_model",
    ("peft", "BaseTuner"): "model",
}
"""By package and class: the attribute that holds the model, which they run as it is."""
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrap(model: Any) -> Any:
    """The model in a compiled, parallel, averaged or adapted one; anything else as it is.

    Such a wrapper is recognised by its class, without importing its package, and has to be of that class itself: in one
    that is derived from it and has another `forward`, or on which a hook was set, something else may happen.

    Raises:
        InputError: the wrapper does something itself; the message names the attribute that holds the model.
    """
    while True:
        shell = _shell(model)
        if shell is None:
            return model
        kind, attribute = shell
        _check_passes_on(model, kind)
        model = getattr(model, attribute)


def way_into(model: Any) -> str:
    """A sentence on how to take a model out of its wrapper, for errors; empty if it has none."""
    path = _path_inside(model)
    return "" if path == "model" else f"{type(model).__name__} wraps a model: cl.wrap takes it out, or pass {path}."


def _path_inside(model: Any) -> str:
    """As code, the innermost model in wrappers that are known: "model.base_model.model"."""
    path = "model"
    while (shell := _shell(model)) is not None and hasattr(model, shell[1]):
        path, model = f"{path}.{shell[1]}", getattr(model, shell[1])
    return path


def path_of(name: str) -> str:
    """A submodule's name as code that reads it from `model`: "0.body" is model[0].body."""
    parts = name.split(".") if name else []
    return "model" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)


def _shell(model: Any) -> tuple[type, str] | None:
    for kind in type(model).__mro__:
        attribute = _SHELLS.get((kind.__module__.split(".")[0], kind.__name__))
        if attribute is not None:
            return kind, attribute
    return None


def _check_passes_on(model: Any, kind: type) -> None:
    """Refuse a wrapper that adds something.

    Raises:
        InputError: it does; with the attribute to pass.
    """
    name = type(model).__name__
    instead = f"If that does not matter, pass the model in it: cl.wrap({_path_inside(model)})."
    config: Any = getattr(model, "active_peft_config", None) if kind.__name__ == "PeftModel" else None
    if getattr(config, "is_prompt_learning", False):
        raise InputError(f"{name} puts learned prompts before the model's input ({config.peft_type}). {instead}")
    if isinstance(model, nn.Module) and is_watched(model):
        raise InputError(f"A torch hook on {name} would not run; remove it, by handle.remove(). {instead}")
    if type(model).__module__.split(".")[0] != kind.__module__.split(".")[0] and _has_own_forward(type(model), kind):
        raise InputError(f"{name} is a {kind.__name__} with a forward of its own, which may do more. {instead}")


def _has_own_forward(cls: type, kind: type) -> bool:
    return any(getattr(cls, method, None) is not getattr(kind, method, None) for method in ("forward", "__call__"))


def check_whole(model: Any) -> None:
    """Refuse a model whose weights are spread over processes.

    Raises:
        InputError: with what to do.
    """
    if any(kind.__name__ in _SHARDED for kind in type(model).__mro__):
        raise InputError(
            f"The weights of this {type(model).__name__} are spread over processes. Save them whole (a full state "
            "dict), and load them into the plain model."
        )
