"""CAAP on a CUDA device: every context, tail, attention, blank, score and sweep, against float64 on the CPU."""

from functools import partial
from typing import Any

import pytest
import torch

import caap_lab as cl
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.scores import SCORES
from caap_lab.engine.settings import ATTENTIONS, CONTEXTS, TAILS
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from helpers.on_gpu import FAMILIES, FORMATS, TRAITS, both, check, images_of, needs_gpu, on_gpu

pytestmark = needs_gpu

SEEN = {"fp32": 1.9e-6, "fp16": 0.0072, "bf16": 0.065}
SETTINGS = [
    (context, tail, attention)
    for context in CONTEXTS
    for tail in TAILS
    for attention in ATTENTIONS
    if context == "clamped" or (tail, attention) == ("exact", "exact")
]


def scores_of_all_classes(model: Any, images: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    return [m.all_scores for m in cl.caap(model, images, 1, progress=False, **options)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("context, tail, attention", SETTINGS)
def test_every_context_tail_and_attention(context: str, tail: str, attention: str, dtype: str) -> None:
    options = {"context": context, "tail": tail, "attention": attention, "cutoff": 2}
    for family in TRAITS:
        if context == "dropped" and not on_gpu(family, torch.float32).spec.live_prefix:
            continue  # refused: its map would be the same everywhere
        check(*both(family, FORMATS[dtype], partial(scores_of_all_classes, **options)), SEEN[dtype], family)


@pytest.mark.parametrize("blank", [*BLANKS, "an image", "mean activations"])
def test_every_blank_is_the_same_on_both(blank: str) -> None:
    def maps(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
        given = {"an image": images[1], "mean activations": cl.blanks.mean_activations(images)}.get(blank, blank)
        return scores_of_all_classes(model, images, blank=given, seed=3)

    check(*both("vit", torch.float32, maps), 1.3e-6, blank)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_every_neighbourhood(neighbourhood: str, dtype: str) -> None:
    def maps(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
        return scores_of_all_classes(model, images, neighbourhood=neighbourhood, start=1, cutoff=3)

    check(*both("dinov2_registers", FORMATS[dtype], maps), SEEN[dtype], neighbourhood)


@pytest.mark.parametrize("dtype", FORMATS)
def test_every_score(dtype: str) -> None:
    for score in SCORES:
        maps = partial(scores_of_all_classes, score=score)
        check(*both("vit", FORMATS[dtype], maps), SEEN[dtype], score)


def swept(model: Any, images: torch.Tensor) -> list[Any]:
    return [
        make(model, images, 1, metrics=(), progress=False).maps
        for make in (cl.sweep_cutoffs, cl.sweep_neighbourhoods, cl.sweep_ranges)
    ]


@pytest.mark.parametrize("dtype", FORMATS)
def test_sweeps(dtype: str) -> None:
    for family in FAMILIES:
        check(*both(family, FORMATS[dtype], swept), SEEN[dtype], family)


@pytest.mark.parametrize("dtype", FORMATS)
def test_cnns(dtype: str) -> None:
    for subject in ("resnet18", "vgg_bn", "densenet"):
        seen = {"fp32": 7e-7, "fp16": 0.0016, "bf16": 0.012}[dtype]
        check(*both(subject, FORMATS[dtype], scores_of_all_classes), seen, subject)


def test_results_do_not_depend_on_the_parts_they_are_made_in() -> None:
    model, images = on_gpu("vit", torch.float32), images_of("vit", torch.float32)
    whole = cl.caap(model, images, 1, progress=False)
    parts = cl.caap(model, images.cpu(), 1, batch_size=1, chunk_size=5, progress=False)
    for one, other in zip(whole, parts, strict=True):
        check([one.all_scores], [other.all_scores], 5e-7, "in parts")
        assert one.scores.device.type == "cpu" and one.settings == other.settings
