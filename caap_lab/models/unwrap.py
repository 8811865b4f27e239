"""Wrappers that only forward to the model inside: compiled, parallel, averaged and adapted models."""

from typing import Any

from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.watched import is_watched

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
"""By package and class: the attribute that holds the wrapped model."""
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrap(model: Any) -> Any:
    """The model inside a compiled, parallel, averaged or adapted one; anything else unchanged.

    A wrapper is recognised by its class, without importing its package. A subclass with another `forward`, or a wrapper
    with a hook, is not accepted, because it may do something else.

    Raises:
        InputError: the wrapper does more than forward to the model; the message names the attribute that holds the
            model.
    """
    while True:
        shell = _shell(model)
        if shell is None:
            return model
        kind, attribute = shell
        _check_passes_on(model, kind)
        model = getattr(model, attribute)


def way_into(model: Any) -> str:
    """A sentence on how to get a model out of its wrapper, for errors; empty if it has none."""
    path = _path_inside(model)
    return "" if path == "model" else f"{type(model).__name__} wraps a model: cl.wrap unwraps it, or pass {path}."


def _path_inside(model: Any) -> str:
    """The innermost model in known wrappers, as code: "model.base_model.model"."""
    path = "model"
    while (shell := _shell(model)) is not None and hasattr(model, shell[1]):
        path, model = f"{path}.{shell[1]}", getattr(model, shell[1])
    return path


def path_of(name: str) -> str:
    """A submodule's name as code that gets it from `model`: "model[0].body" for "0.body"."""
    parts = name.split(".") if name else []
    return "model" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)


def _shell(model: Any) -> tuple[type, str] | None:
    for kind in type(model).__mro__:
        attribute = _SHELLS.get((kind.__module__.split(".")[0], kind.__name__))
        if attribute is not None:
            return kind, attribute
    return None


def _check_passes_on(model: Any, kind: type) -> None:
    """Raise InputError for a wrapper that changes the model's computation.

    Raises:
        InputError: it does; the message gives the attribute to pass.
    """
    name = type(model).__name__
    instead = f"If that does not matter, pass the model inside: cl.wrap({_path_inside(model)})."
    config: Any = getattr(model, "active_peft_config", None) if kind.__name__ == "PeftModel" else None
    if getattr(config, "is_prompt_learning", False):
        raise InputError(f"{name} puts learned prompts before the model's input ({config.peft_type}). {instead}")
    if isinstance(model, nn.Module) and is_watched(model):
        raise InputError(f"A torch hook on {name} would not run; remove it with handle.remove(). {instead}")
    if type(model).__module__.split(".")[0] != kind.__module__.split(".")[0] and _has_own_forward(type(model), kind):
        raise InputError(f"{name} is a {kind.__name__} with a forward of its own, which may do more. {instead}")


def _has_own_forward(cls: type, kind: type) -> bool:
    return any(getattr(cls, method, None) is not getattr(kind, method, None) for method in ("forward", "__call__"))


def check_whole(model: Any) -> None:
    """Raise InputError for a model whose weights are distributed over processes or not loaded.

    Raises:
        InputError: they are; the message says what to do.
    """
    if isinstance(model, nn.Module) and any(parameter.is_meta for parameter in model.parameters()):
        raise InputError(
            f"Weights of this {type(model).__name__} are not loaded (device 'meta'). Load them first: "
            "module.load_state_dict(weights, assign=True), or from_pretrained without offloading."
        )
    if any(kind.__name__ in _SHARDED for kind in type(model).__mro__):
        raise InputError(
            f"The weights of this {type(model).__name__} are distributed over processes. Save a full state dict and "
            "load it into the plain model."
        )
