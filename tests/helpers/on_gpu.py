"""A CUDA device beside the CPU: the same call on both, and how far the results are apart.

The reference is computed in float64 on the CPU and holds the same rounded weights and images, so that what is compared
is the computation. A difference is a share of the reference's largest value. Bounds are `MARGIN` times the largest
difference seen, as other GPUs and versions add up in other orders.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from caap_lab.models.base import HookedModel
from helpers.models import random_images
from helpers.subjects import build_subject, kind_of

DEVICE = "cuda"
FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FAMILIES = ("vit", "deit3", "siglip", "dinov2_registers")
TRAITS = (*FAMILIES, "deit_distilled", "conv_stem", "rope_mixed", "beit", "dino_head4", "shared_keys", "dinov3", "clip")
"""What families differ in where a device could matter: tables of positions, registers, pooling, heads, norms."""
MARGIN = 4
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
Seen = tuple[float, float, float]
"""Largest differences seen in float32, float16, bfloat16, on an H100."""


def as_numbers(values: Any) -> np.ndarray:
    """A tensor from any device, or an array, in float64."""
    return np.asarray(values.detach().double().cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)


def difference(found: Any, expected: Any) -> float:
    """The largest difference as a share of the largest expected value; NaN where only one of both is NaN."""
    a, b = (as_numbers(values) for values in (found, expected))
    assert a.shape == b.shape
    if np.isnan(a).any() and (np.isnan(a) == np.isnan(b)).all():  # NaN says that there is no such thing
        a, b = np.nan_to_num(a), np.nan_to_num(b)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


def check(found: Sequence[Any], expected: Sequence[Any], seen: float, what: str) -> None:
    """Compare results pair by pair, with `MARGIN` times the largest difference seen as the bound."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        apart = difference(one, other)
        assert apart < MARGIN * seen, f"{what}: {apart:.2g} apart, {MARGIN * seen:.2g} allowed"


@cache
def on_gpu(subject: str, dtype: torch.dtype) -> HookedModel:
    """A small random model on the device."""
    return build_subject(subject).to(DEVICE, dtype)


@cache
def exact(subject: str, dtype: torch.dtype) -> HookedModel:
    """The same one with the same rounded weights, in float64 on the CPU."""
    return build_subject(subject).to(dtype).to(torch.float64)


@cache
def images_of(subject: str, dtype: torch.dtype, count: int = 2) -> torch.Tensor:
    """Images for it on the device, rounded to the format."""
    model = build_subject(subject)
    if kind_of(subject) == "vit":
        images = random_images(model, count)
    else:
        images = torch.randn(count, 3, *model.image_size, generator=torch.Generator().manual_seed(1))
    return images.to(DEVICE, dtype)


def both(subject: str, dtype: torch.dtype, call: Callable[[Any, torch.Tensor], Any], count: int = 2) -> tuple[Any, Any]:
    """What a call gives on the device, and what it gives in float64 on the CPU for the same weights and images."""
    images = images_of(subject, dtype, count)
    return call(on_gpu(subject, dtype), images), call(exact(subject, dtype), images.cpu().double())
