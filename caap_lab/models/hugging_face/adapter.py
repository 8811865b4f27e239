"""Adapters that PEFT trained, merged into their base model."""

from typing import Any

from torch import Tensor, nn

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.checkpoint import read_tensors
from caap_lab.models.hugging_face.folder import AdapterFolder

_IN_FRONT = "base_model.model."
"""Of names in an adapter's file."""
_CLASSIFIERS = ("classifier", "head")


def trained_modules(folder: AdapterFolder) -> tuple[str, ...]:
    """Modules that the adapter holds whole, such as the classifier."""
    return tuple(folder.settings.get("modules_to_save") or ())


def base_class(folder: AdapterFolder) -> str | None:
    """Name of transformers' class that was trained; None for the one that the base model's configuration names."""
    named = (folder.settings.get("auto_mapping") or {}).get("base_model_class")
    return named if isinstance(named, str) else None


def count_trained_classes(folder: AdapterFolder) -> int | None:
    """Rows of the classifier that the adapter holds; None if it holds none."""
    state = read_tensors(folder.weights)
    for module in trained_modules(folder):
        weight = state.get(f"{_IN_FRONT}{module}.weight")
        if module in _CLASSIFIERS and weight is not None and weight.ndim == 2:
            return weight.shape[0]
    return None


def merge(folder: AdapterFolder, base: nn.Module) -> nn.Module:
    """The base model with the adapter's changes in its weights; `base` itself is changed.

    Raises:
        InputError: PEFT is not installed, or the adapter is of a kind that cannot be merged.
        CheckpointError: the adapter does not fit the base model.
    """
    try:
        import peft
    except ImportError:
        raise InputError(
            f"{folder.name} holds an adapter of PEFT, which is not installed: pip install peft. Or merge it elsewhere "
            "(merge_and_unload of PEFT), save that model, and load its folder."
        ) from None
    try:
        config = peft.PeftConfig.from_pretrained(str(folder.path))
        config.base_model_name_or_path = None  # it is here, and PEFT would warn that it is another one
        model: Any = peft.get_peft_model(base, config)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"The adapter {folder.name} does not fit its base model {folder.base.name}: {error}"
        ) from error
    if not hasattr(model, "merge_and_unload"):
        raise InputError(f"{folder.name} is an adapter of the kind {config.peft_type}, which no weights can take up.")
    state = read_tensors(folder.weights)
    _check_fit(folder, state, peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    peft.set_peft_model_state_dict(model, state)
    try:
        return model.merge_and_unload(safe_merge=True).eval()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise InputError(f"The adapter {folder.name} cannot be merged into its base model: {error}") from error


def _check_fit(folder: AdapterFolder, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    wrong = sorted(
        name
        for name in state.keys() | own.keys()
        if name not in state or name not in own or state[name].shape != own[name].shape
    )
    if wrong:
        more = ", ..." if len(wrong) > 4 else ""
        raise CheckpointError(
            f"The adapter {folder.name} does not fit its base model {folder.base.name}: {len(wrong)} weights are "
            f"missing, left over or of another shape: {', '.join(wrong[:4])}{more}"
        )
