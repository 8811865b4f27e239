"""Folders with config.json and weights, as transformers and timm save them, with small models and random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import logging

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 8,
}
SAVED: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {**SMALL, "num_labels": 5},
    "ViTModel": SMALL,
    "DeiTForImageClassificationWithTeacher": {**SMALL, "num_labels": 5},
    "Dinov2ForImageClassification": {**SMALL, "mlp_ratio": 2, "num_labels": 5},
    "Dinov2WithRegistersModel": {**SMALL, "mlp_ratio": 2},
    "DINOv3ViTModel": {**SMALL, "num_register_tokens": 2},
    "CLIPModel": {"vision_config": SMALL, "text_config": TEXT, "projection_dim": 16},
    "SiglipModel": {"vision_config": SMALL, "text_config": {**TEXT, "projection_size": 32}},
    "SiglipForImageClassification": {"vision_config": SMALL, "text_config": TEXT, "num_labels": 4},
    "BeitForImageClassification": {**SMALL, "num_labels": 5, "use_relative_position_bias": True},
}
"""Classes of transformers with a configuration that makes them small."""
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def save_transformers(
    folder: Path, kind: str = "ViTForImageClassification", processor: dict[str, Any] | None = PROCESSOR, **changes: Any
) -> Any:
    """A model of transformers with random weights, saved with its image processor; the model itself comes back."""
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = cls.config_class(**{**SAVED[kind], **changes})
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # all of them count, also those that start as 0 or 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def change_json(path: Path, **changes: Any) -> None:
    """Set some fields of a JSON file; None takes a field away."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def put_in_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, repository: str, folder: Path, commit: str) -> Path:
    """Lay a folder where huggingface_hub keeps its cache, and point huggingface_hub there; the snapshot comes back."""
    import huggingface_hub

    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit)
    snapshot = place / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    look_up = huggingface_hub.try_to_load_from_cache
    if not isinstance(look_up, _InCache):
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", _InCache(look_up, cache))
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", _no_network)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).exists():  # a mark, as huggingface_hub leaves it, that there is none
            (place / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
            (place / ".no_exist" / commit / name).touch()
    return snapshot


def _no_network(*args: Any, **options: Any) -> None:
    raise AssertionError("the network was asked")


class _InCache:
    """huggingface_hub's look-up, in a cache of a test's own."""

    def __init__(self, look_up: Any, cache: Path) -> None:
        self.look_up, self.cache = look_up, cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.look_up(*args, **{**kwargs, "cache_dir": self.cache})
