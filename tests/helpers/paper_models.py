"""Folders with small random models that have the classes of the paper's data sets, to stand in for its own models."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
CNN: dict[str, Any] = {"channels": (8, 8, 8, 8)}


def vit_folder(folder: Path, n_classes: int = 1000) -> str:
    """A Vision Transformer for images of 32 pixels; returns its folder."""
    return _saved(folder, "vit_tiny_patch16_224", {**VIT, "num_classes": n_classes}, 32)


def cnn_folder(folder: Path, n_classes: int = 1000) -> str:
    """A ResNet for images of 64 pixels; returns its folder."""
    return _saved(folder, "resnet18", {**CNN, "num_classes": n_classes}, 64)


def head_file(path: Path, n_classes: int = 1000) -> str:
    """A linear head in DINOv2's form for `vit_folder`'s model; returns its path."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n_classes, 2 * VIT["embed_dim"], generator=generator)
    save_file({"weight": weight, "bias": torch.zeros(n_classes)}, path)
    return str(path)


def _saved(folder: Path, name: str, arguments: dict[str, Any], pixels: int) -> str:
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, pixels, pixels)}
    with torch.no_grad():
        for parameter in model.parameters():  # all of them count, also those that start as 0 or 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return str(folder)
