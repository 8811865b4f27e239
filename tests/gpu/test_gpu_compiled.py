"""compile=True on a CUDA device: against float64 on the CPU, and the same work for other numbers of images."""

from functools import partial
from typing import Any

import pytest
import torch

import caap_lab as cl
from helpers.on_gpu import FORMATS, TRAITS, both, check, images_of, needs_gpu, on_gpu

pytestmark = [*needs_gpu, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]

SEEN = {"fp32": 1.9e-6, "fp16": 0.0072, "bf16": 0.065}
"""Those of CAAP without compiling; compiled blocks were not run on a GPU yet."""


def compiled(model: Any) -> Any:
    """The same weights with compiled blocks on the device, and the reference on the CPU as it is."""
    return cl.wrap(model.vit, head=model.head, compile=True) if model.device.type == "cuda" else model


@torch.no_grad()
def logits(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    return [compiled(model)(images)]


def maps(model: Any, images: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    return [m.all_scores for m in cl.caap(compiled(model), images, 1, progress=False, **options)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("family", TRAITS)
def test_logits_and_maps(family: str, dtype: str) -> None:
    for call in (logits, maps, partial(maps, context="free")):
        check(*both(family, FORMATS[dtype], call), SEEN[dtype], family)


@torch.no_grad()
def test_other_numbers_of_images_compile_nothing() -> None:
    model, images = compiled(on_gpu("vit", torch.float32)), images_of("vit", torch.float32)
    for few in (images[:1], images[:2]):
        model(few), cl.caap(model, few, 1, progress=False)
    with torch.compiler.set_stance("fail_on_recompile"):
        several = images[torch.arange(5) % 2]
        model(several), cl.caap(model, several, 1, progress=False)
