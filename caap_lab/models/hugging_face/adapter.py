"""Adapters trained with PEFT, merged into their base model."""

import warnings
from typing import Any

from torch import Tensor, nn

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.checkpoint import read_tensors
from caap_lab.models.hugging_face.folder import AdapterFolder

_IN_FRONT = "base_model.model."
"""Prefix of the names in an adapter's file."""
_CLASSIFIERS = ("classifier", "head")


def trained_modules(folder: AdapterFolder) -> tuple[str, ...]:
    """Modules that the adapter stores completely, such as the classifier."""
    return tuple(folder.settings.get("modules_to_save") or ())


def base_class(folder: AdapterFolder) -> str | None:
    """Name of the transformers class that was trained; None for the class in the base model's configuration."""
    named = (folder.settings.get("auto_mapping") or {}).get("base_model_class")
    return named if isinstance(named, str) else None


def count_trained_classes(folder: AdapterFolder) -> int | None:
    """Number of rows of the classifier stored with the adapter; None if there is none."""
    state = read_tensors(folder.weights)
    for module in trained_modules(folder):
        weight = state.get(f"{_IN_FRONT}{module}.weight")
        if module in _CLASSIFIERS and weight is not None and weight.ndim == 2:
            return weight.shape[0]
    return None


def merge(folder: AdapterFolder, base: nn.Module) -> nn.Module:
    """The base model with the adapter merged into its weights; `base` itself is changed.

    Raises:
        InputError: PEFT is not installed, or this kind of adapter cannot be merged.
        CheckpointError: the adapter does not fit the base model.
    """
    try:
        import peft
    except ImportError:
        raise InputError(
            f"{folder.name} holds a PEFT adapter, and PEFT is not installed: pip install peft. Or merge it elsewhere "
            "(PEFT's merge_and_unload), save the merged model, and load its folder."
        ) from None
    config = peft.PeftConfig.from_pretrained(str(folder.path))
    config.base_model_name_or_path = None  # the base model is loaded already, and PEFT would warn about another name
    config.task_type = None  # it only describes how the output is used
    state = _by_new_names(folder, read_tensors(folder.weights), base, config)
    try:
        with warnings.catch_warnings():  # PEFT uses names that transformers has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            model: Any = peft.get_peft_model(base, config)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"The adapter {folder.name} does not fit its base model {folder.base.name}: {error}"
        ) from error
    if not hasattr(model, "merge_and_unload"):
        raise InputError(f"{folder.name} is an adapter of the kind {config.peft_type}, which cannot be merged.")
    _check_fit(folder, state, peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    peft.set_peft_model_state_dict(model, state)
    try:
        return model.merge_and_unload(safe_merge=True).eval()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise InputError(f"The adapter {folder.name} cannot be merged into its base model: {error}") from error


def _by_new_names(folder: AdapterFolder, state: dict[str, Tensor], base: Any, config: Any) -> dict[str, Tensor]:
    """An adapter from a time when transformers had other module names, under today's names.

    Args:
        folder: The adapter's folder.
        state: Its weights.
        base: Its base model.
        config: Its configuration, which is changed to the new names of the same modules.

    Raises:
        InputError: some modules have individual settings under the old names.
    """
    modules = dict(base.named_modules())
    old = {name for name in state if ".lora_" in name and _module(name) not in modules}
    if not old or not hasattr(getattr(base, "config", None), "model_type"):
        return state
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [entry for entry in get_model_conversion_mapping(base) if isinstance(entry, WeightRenaming)]
    new = {
        name: _IN_FRONT + rename_source_key(name.removeprefix(_IN_FRONT), renamings, [])[0] if name in old else name
        for name in state
    }
    if not all(_module(new[name]) in modules for name in old):
        return state  # for another model, as the following check will report
    if config.rank_pattern or config.alpha_pattern:
        raise InputError(
            f"{folder.name} was trained when transformers had other module names, and its rank_pattern or "
            "alpha_pattern uses some of them. Merge it with the version that it was trained with (PEFT's "
            "merge_and_unload), save the merged model, and load its folder."
        )
    config.target_modules = sorted({_module(name) for name in new.values() if ".lora_" in name})
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None  # target_modules lists all
    return {new[name]: value for name, value in state.items()}


def _module(name: str) -> str:
    """The module that a LoRA weight belongs to."""
    return name.removeprefix(_IN_FRONT).split(".lora_")[0]


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
            f"missing, unexpected or of the wrong shape: {', '.join(wrong[:4])}{more}"
        )
