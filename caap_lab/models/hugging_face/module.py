"""The transformers model of a folder: built from config.json without code from the checkpoint, loaded strictly."""

import copy
import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.checkpoint import read_tensors
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.hugging_face.folder import CONFIG, CheckpointFolder
from caap_lab.models.supported import BLACK_BOX, REFUSED_FILES
from caap_lab.models.twins.families import family_of_class

SUPPORTED = (
    "Supported are transformers' ViT, DeiT, ViT-MSN, I-JEPA, DINOv2 (also with registers), DINOv3, CLIP, MetaCLIP 2, "
    "SigLIP, BEiT and Data2Vec, and models saved by timm. For other image classifiers: "
    f"{BLACK_BOX}"
)
_REASONS = {
    **{"swin": "swin_transformer", "swinv2": "swin_transformer_v2", "donut-swin": "swin_transformer", "hiera": "hiera"},
    **{"pvt": "pvt_v2", "pvt_v2": "pvt_v2", "levit": "levit", "mobilevit": "mobilevit", "mobilevitv2": "mobilevit"},
    **{"focalnet": "focalnet", "swiftformer": "swiftformer", "mvitv2": "mvitv2", "siglip2": "naflexvit"},
    **{"siglip2_vision_model": "naflexvit", "sam": "vision_transformer_sam"},
}
"""Unsupported types and timm's file of the same network, for which the same reason holds."""
_TOWERS = {
    "CLIPModel": "CLIPVisionModelWithProjection",
    "MetaClip2Model": "MetaClip2VisionModelWithProjection",
    "SiglipModel": "SiglipVisionModel",
}
"""The image part of models that read images and text."""
_OF_TEXT = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
_MOST_SHOWN = 4


def build_module(
    folder: CheckpointFolder, class_name: str | None = None, n_classes: int | None = None, untrained: Sequence[str] = ()
) -> nn.Module:
    """A transformers model in float32 on the CPU, in evaluation mode; of models with text, only the image part.

    Args:
        folder: The opened folder.
        class_name: The class to build, instead of the one in config.json.
        n_classes: Number of rows of the classifier, instead of the number in config.json.
        untrained: Modules whose weights may be missing, because they are set later.

    Raises:
        InputError: the model is not supported.
        CheckpointError: a weight is missing, unexpected, of the wrong shape or not finite.
    """
    cls, config = _class_and_config(folder, class_name)
    if n_classes is not None:
        config.num_labels = n_classes
    state: dict[str, Tensor] = {}
    for path in folder.weights:
        state |= read_tensors(path)
    for name, value in state.items():
        if not all_finite(value):
            raise CheckpointError(f"{name} of {folder.name} holds NaN or infinity.")
    if cls.__name__ in _TOWERS.values():
        state = {name: value for name, value in state.items() if not name.startswith(_OF_TEXT)}
    if n_classes is not None:  # the classifier is replaced by one with another number of classes
        state = {name: value for name, value in state.items() if not name.startswith(tuple(untrained))}
    has_option = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    options = {"add_pooling_layer": False} if has_option and not any("pooler." in name for name in state) else {}
    try:
        with _quiet():
            module, report = cls.from_pretrained(
                None,
                config=config,
                state_dict=state,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below as errors, with their shapes
                dtype=torch.float32,
                **options,
            )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"The weights of {folder.name} do not fit {cls.__name__}: {error}") from error
    missing = [name for name in report["missing_keys"] if not _in(name, untrained)]
    misshapen = [f"{name} is {list(given)} instead of {list(own)}" for name, given, own in report["mismatched_keys"]]
    _check_fit(folder, cls.__name__, missing, list(report["unexpected_keys"]), misshapen)
    return module.eval()


def _class_and_config(folder: CheckpointFolder, class_name: str | None) -> tuple[Any, Any]:
    """The transformers class and its configuration, without weights; never a class from the checkpoint's code."""
    import transformers

    if class_name is None:
        names = folder.settings.get("architectures")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise InputError(
                f"{CONFIG} of {folder.name} does not name exactly one transformers class; add it, for example "
                '"architectures": ["ViTForImageClassification"].'
            )
        class_name = names[0]
    kind = _model_type(folder, class_name)
    for key in ("quantization_config", "compression_config"):
        if folder.settings.get(key):
            raise InputError(f"{folder.name} holds quantised weights ({key}); load unquantised ones.")
    cls: Any = getattr(transformers, _TOWERS.get(class_name, class_name), None)
    code = " Code in a checkpoint is never run." if "auto_map" in folder.settings else ""
    is_model = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
    if not is_model:
        raise InputError(f"{folder.name} is a {class_name}, which transformers does not have.{code} {SUPPORTED}")
    if family_of_class(cls) is None:
        raise InputError(f"{folder.name} is a {class_name}, which is not supported. {SUPPORTED}")
    try:
        with _quiet():
            config = transformers.CONFIG_MAPPING[kind].from_dict(copy.deepcopy(folder.settings))
            if class_name in _TOWERS:
                width, config = getattr(config, "projection_dim", None), config.vision_config
                if width is not None:
                    config.projection_dim = width
            if isinstance(config, cls.config_class):
                with torch.device("meta"):  # only shapes are needed
                    cls(config)
    except Exception as error:  # many kinds: configurations and models check their own values
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{CONFIG} of {folder.name} cannot be used: {reason}") from error
    if not isinstance(config, cls.config_class):
        raise InputError(f"{CONFIG} of {folder.name} has the type {kind!r}, which does not match {class_name}.")
    return cls, config


def _model_type(folder: CheckpointFolder, class_name: str) -> str:
    """The model type in config.json, if the installed transformers knows it and it is supported."""
    from transformers import CONFIG_MAPPING

    kind = folder.settings.get("model_type")
    if kind is None:
        raise InputError(
            f"{CONFIG} of {folder.name} names neither a timm architecture (architecture) nor a transformers model "
            "type (model_type), so it is not known which model the weights belong to."
        )
    if kind in _REASONS:
        raise InputError(
            f"{folder.name} is a {class_name}, which is not supported: {REFUSED_FILES[_REASONS[kind]]}. {SUPPORTED}"
        )
    if kind not in CONFIG_MAPPING:
        raise InputError(f"transformers does not know the model type {kind!r} of {folder.name}. {SUPPORTED}")
    return str(kind)


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without transformers' report and progress bar; what it would report is an error here."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _in(name: str, modules: Sequence[str]) -> bool:
    return any(f".{module}." in f".{name}" for module in modules)


def _check_fit(
    folder: CheckpointFolder, class_name: str, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> None:
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    report = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:_MOST_SHOWN])}{', ...' if len(names) > _MOST_SHOWN else ''}"
        for what, names in found
        if names
    ]
    if report:
        raise CheckpointError("\n  ".join([f"The weights of {folder.name} do not fit {class_name}.", *report]))
