"""On a CUDA device, in three number formats, against float64 on the CPU.

The reference holds the same rounded weights and images, so that what is compared is the computation. Every difference
is a share of the reference's largest value. Bounds are four times the largest difference seen on an H100 (torch 2.11),
over eight families of models and two images each, as other GPUs and versions add up in other orders.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.settings import ATTENTIONS, CONTEXTS, TAILS
from caap_lab.metrics.protocol import PROTOCOLS
from caap_lab.models.base import HookedModel
from helpers.cnns import small_cnn
from helpers.models import build, random_images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FAMILIES = ("vit", "deit3", "siglip", "dinov2_registers")
MARGIN = 4

SEEN: dict[str, tuple[float, float, float]] = {
    # method: largest differences in float32, float16, bfloat16
    "caap": (4e-6, 0.007, 0.04),
    "grad_cam": (1.6e-6, 0.008, 0.05),
    "rollout": (6e-7, 0.0011, 0.008),
    "transformer_attribution": (4e-6, 4e-6, 4e-6),  # computed in float64 whatever the format
    "vit_cx": (2.4e-6, 0.12, 3.0),
    "tam": (1.1e-6, 0.0023, 0.03),
    "ixg_plus": (1.2e-5, 0.02, 0.11),
    "libra_ixg_plus": (2.3e-6, 0.0065, 0.037),
    "mda": (2.1e-6, 0.0051, 0.6),
    "mutex": (7e-7, 0.17, 0.21),
    "simple_insertion": (2.5e-6, 0.006, 0.04),
    "simple_deletion": (1.7e-6, 0.005, 0.04),
    "input_x_gradient": (6.6e-6, 0.022, 0.09),
    "integrated_gradients": (3.2e-6, 0.0054, 0.071),
    "smoothgrad": (6.2e-7, 0.0011, 0.013),
    "full_grad_plus": (2.5e-6, 0.011, 0.049),
    "grad_cam_plus_plus": (3.1e-5, 0.19, 1.5),
    "score_cam": (7.1e-5, 0.05, 1.0),
    "attcat": (4.7e-6, 0.014, 0.13),
    "grad_sam": (4e-6, 0.0086, 0.044),
    "gen_att": (4.2e-6, 0.0093, 0.049),
    "rise": (5.7e-7, 0.0028, 0.051),
    "occlusion": (2.9e-6, 0.016, 0.092),
    "tis": (6e-7, 0.048, 0.063),
    "atman": (3e-6, 0.012, 0.15),
    "legrad": (3.5e-7, 0.0008, 0.0085),  # this and the next: as a CPU rounds in these formats
    "attn_lrp": (2.1e-6, 0.0026, 0.026),
}
UNSTABLE = {
    "vit_cx": "which channels form a cluster turns on one distance, and weights are differences of near probabilities",
    "mda": "the order in which patches are taken turns on near scores",
    "mutex": "patches are taken one after another, each the best so far by near scores",
    "tis": "which tokens form a mask turns on near activations",
    "grad_cam_plus_plus": "a denominator of either sign may come close to zero, and one channel then outweighs all",
    "score_cam": "a sum over channels of either sign, cut off at zero, which leaves one cell or none",
}
"""Methods in which rounding to half precision can turn a choice, or is magnified where two values nearly cancel.

One turned choice moves a whole map, so there most maps have to keep the order of patches, instead of each its values.
"""
QUICK: dict[str, dict[str, Any]] = {"rise": {"samples": 64}}


def difference(found: Any, expected: Any) -> float:
    """The largest difference as a share of the largest expected value."""
    a, b = (np.asarray(torch.as_tensor(values).detach().double().cpu()) for values in (found, expected))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


@cache
def on_gpu(family: str, dtype: torch.dtype) -> HookedModel:
    model = small_cnn(family) if family in ("resnet18", "vgg_bn") else build(family)
    return model.to("cuda", dtype)


@cache
def images_of(family: str, dtype: torch.dtype) -> torch.Tensor:
    if family in ("resnet18", "vgg_bn"):
        return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to("cuda", dtype)
    return random_images(build(family), 2).to("cuda", dtype)


def both(family: str, dtype: torch.dtype, call: Callable[[Any, torch.Tensor], Any]) -> tuple[Any, Any]:
    """What a call gives on the GPU, and what it gives in float64 on the CPU for the same weights and images."""
    model, images = on_gpu(family, dtype), images_of(family, dtype)
    exact = (small_cnn(family) if family in ("resnet18", "vgg_bn") else build(family)).to(dtype).to(torch.float64)
    return call(model, images), call(exact, images.cpu().double())


def maps_by(name: str) -> Callable[[Any, torch.Tensor], list[torch.Tensor]]:
    """Calls of one method for class 1: in half precision the predicted class could be another."""
    options = QUICK.get(name, {})
    return lambda model, images: [m.scores for m in cl.attribute(model, images, name, 1, progress=False, **options)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", SEEN)
def test_every_method(name: str, dtype: str) -> None:
    pairs = [pair for family in FAMILIES for pair in zip(*both(family, FORMATS[dtype], maps_by(name)), strict=True)]
    if dtype != "fp32" and name in UNSTABLE:
        ranks = [spearmanr(found.flatten(), expected.flatten()).statistic for found, expected in pairs]
        assert np.median(np.nan_to_num(ranks, nan=1)) > {"fp16": 0.95, "bf16": 0.85}[dtype]
    else:
        bound = MARGIN * dict(zip(FORMATS, SEEN[name], strict=True))[dtype]
        assert max(difference(found, expected) for found, expected in pairs) < bound


def test_no_method_is_left_out() -> None:
    assert set(SEEN) == {name for name, method in METHODS.items() if "vit" in method.models}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("family", ["resnet18", "vgg_bn"])
def test_methods_on_cnns(family: str, dtype: str) -> None:
    for name, method in METHODS.items():
        if "cnn" in method.models and name not in UNSTABLE:
            for found, expected in zip(*both(family, FORMATS[dtype], maps_by(name)), strict=True):
                # A ReLU whose input is near 0 opens or shuts with rounding, and a pixel's gradient jumps with it.
                assert difference(found, expected) < {"fp32": 1e-3, "fp16": 0.6, "bf16": 0.6}[dtype], name


SETTINGS = [
    (context, tail, attention)
    for context in CONTEXTS
    for tail in TAILS
    for attention in ATTENTIONS
    if context == "clamped" or (tail, attention) == ("exact", "exact")
]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("context, tail, attention", SETTINGS)
def test_every_context_tail_and_attention(context: str, tail: str, attention: str, dtype: str) -> None:
    options = {"context": context, "tail": tail, "attention": attention, "cutoff": 2}
    for family in FAMILIES:
        if (family, context) == ("siglip", "dropped"):  # refused: its map would be the same everywhere
            continue

        def maps(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
            return [m.all_scores for m in cl.caap(model, images, 1, progress=False, **options)]

        for found, expected in zip(*both(family, FORMATS[dtype], maps), strict=True):
            assert difference(found, expected) < MARGIN * {"fp32": 1e-6, "fp16": 0.005, "bf16": 0.036}[dtype], family


@pytest.mark.parametrize("blank", BLANKS)
def test_every_blank_is_the_same_on_both(blank: str) -> None:
    def maps(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
        return [m.all_scores for m in cl.caap(model, images, 1, blank=blank, seed=3, progress=False)]

    for found, expected in zip(*both("vit", torch.float32, maps), strict=True):
        assert difference(found, expected) < 2e-5


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_curve(protocol: str, dtype: str) -> None:
    """Of the same scores, made on the CPU: near scores of two maps could give another order of pixels."""
    for family in FAMILIES:
        exact = build(family).to(FORMATS[dtype]).to(torch.float64)
        scores = [m.scores for m in rollout(exact, images_of(family, torch.float64).cpu())]

        def areas(model: Any, images: torch.Tensor, scores: Any = scores) -> list[list[float]]:
            made = [replace(m, scores=s) for m, s in zip(rollout(model, images), scores, strict=True)]
            curves = cl.insertion_deletion(model, images, made, protocol=protocol, progress=False)
            return [[each.insertion, each.deletion] for each in curves]

        found, expected = both(family, FORMATS[dtype], areas)
        if PROTOCOLS[protocol].score != "top1":  # which class is the first one can turn on rounding
            bound = MARGIN * {"fp32": 1.5e-6, "fp16": 0.013, "bf16": 0.06}[dtype]
            assert difference(found, expected) < bound, family


def rollout(model: Any, images: torch.Tensor) -> list[cl.AttributionMap]:
    return cl.attribute(model, images, "rollout", 1, progress=False)


def record(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    store = model.record(images, ["resid_pre", "pattern", "logits"], progress=False)
    return [store["resid_pre", 2], store["pattern", 2], store["logits"]]


def patched(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    store = model.record(images[1:], ["resid_pre"], layers=[1], progress=False)
    with torch.no_grad():
        return [model.run_patched(images[:1], cl.Patch("resid_pre", [1], [3, 4], source=store))]


def swept_patches(model: Any, images: torch.Tensor) -> list[Any]:
    store = model.record(images[1:], ["z"], progress=False)

    def patch(layer: int) -> cl.Patch:
        return cl.Patch("z", [layer], source=store)

    return [cl.sweep(model, images[:1], patch, over={"layer": [0, 1, 2]}, metric=1, progress=False).values]


def swept_caap(model: Any, images: torch.Tensor) -> list[Any]:
    return [
        make(model, images, 1, metrics=(), progress=False).maps for make in (cl.sweep_cutoffs, cl.sweep_neighbourhoods)
    ]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("call", [record, patched, swept_patches, swept_caap], ids=lambda call: call.__name__)
def test_records_patches_and_sweeps(call: Callable[..., Any], dtype: str) -> None:
    for family in FAMILIES:
        for found, expected in zip(*both(family, FORMATS[dtype], call), strict=True):
            assert difference(found, expected) < MARGIN * {"fp32": 1.5e-6, "fp16": 0.006, "bf16": 0.036}[dtype], family


def test_results_do_not_depend_on_the_parts_they_are_made_in(tmp_path: Path) -> None:
    model, images = on_gpu("vit", torch.float32), images_of("vit", torch.float32)
    whole = cl.caap(model, images, 1, progress=False)
    parts = cl.caap(model, images.cpu(), 1, batch_size=1, chunk_size=5, progress=False)
    for one, other in zip(whole, parts, strict=True):
        assert difference(one.all_scores, other.all_scores) < 1e-5
        assert one.scores.device.type == "cpu" and one.settings == other.settings
    store = model.record(images, ["resid_pre"], out=tmp_path / "store", progress=False)
    assert difference(store["resid_pre", 1], model.record(images, ["resid_pre"], progress=False)["resid_pre", 1]) == 0


def test_a_model_is_the_same_one_on_both() -> None:
    assert on_gpu("vit", torch.float32).fingerprint == build("vit").fingerprint


def test_waiting_for_the_gpu_does_not_grow_with_the_model() -> None:
    """What reads a value back for each block or weight makes the processor wait as often, and the GPU after it."""

    def waits(family: str) -> int:
        model = on_gpu(family, torch.float32)
        image = images_of(family, torch.float32)[:1]
        cl.caap(model, image, 0)  # the blank's run is kept
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns() as said:
                cl.caap(model, image, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchron" in str(warning.message) for warning in said)

    assert waits("vit") < 20  # it has 52 weights
