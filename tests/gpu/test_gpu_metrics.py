"""Curves, SaCo, recorded and patched activations, twins and whole benchmarks on a CUDA device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.metrics.protocol import PROTOCOLS
from helpers.on_gpu import DEVICE, FAMILIES, FORMATS, both, check, difference, exact, images_of, needs_gpu, on_gpu
from helpers.originals import build_original

pytestmark = needs_gpu


def rollout(model: Any, images: torch.Tensor) -> list[cl.AttributionMap]:
    return cl.attribute(model, images, "rollout", 1, progress=False)


def same_maps(family: str, dtype: torch.dtype) -> Callable[[Any, torch.Tensor], list[cl.AttributionMap]]:
    """Maps with the same scores on both, made on the CPU: near scores of two maps give another order of pixels."""
    scores = [m.scores for m in rollout(exact(family, dtype), images_of(family, dtype).cpu().double())]
    return lambda model, images: [replace(m, scores=s) for m, s in zip(rollout(model, images), scores, strict=True)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_curve(protocol: str, dtype: str) -> None:
    for family in FAMILIES:
        maps = same_maps(family, FORMATS[dtype])

        def areas(model: Any, images: torch.Tensor, maps: Any = maps) -> list[list[float]]:
            curves = cl.insertion_deletion(model, images, maps(model, images), protocol=protocol, progress=False)
            return [[each.insertion, each.deletion] for each in curves]

        found, expected = both(family, FORMATS[dtype], areas)
        if PROTOCOLS[protocol].score != "top1":  # which class is the first one can turn on rounding
            check(found, expected, {"fp32": 1.9e-6, "fp16": 0.008, "bf16": 0.033}[dtype], family)


@pytest.mark.parametrize("dtype", FORMATS)
def test_saco(dtype: str) -> None:
    for family in FAMILIES:
        maps = same_maps(family, FORMATS[dtype])

        def effects(model: Any, images: torch.Tensor, maps: Any = maps) -> list[np.ndarray]:
            return [each.group_effects for each in cl.saco(model, images, maps(model, images), progress=False)]

        seen = {"fp32": 4.2e-6, "fp16": 0.005, "bf16": 0.034}[dtype]
        check(*both(family, FORMATS[dtype], effects), seen, family)


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


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("call", [record, patched, swept_patches], ids=lambda call: call.__name__)
def test_records_and_patches(call: Callable[..., Any], dtype: str) -> None:
    seen = {"fp32": 2e-6, "fp16": 0.0042, "bf16": 0.024}[dtype]
    for family in (*FAMILIES, "beit", "rope_mixed", "deit_distilled"):
        check(*both(family, FORMATS[dtype], call), seen, family)


def test_stores_on_disk_hold_the_same(tmp_path: Path) -> None:
    model, images = on_gpu("vit", torch.float32), images_of("vit", torch.float32)
    store = model.record(images, ["resid_pre"], out=tmp_path / "store", progress=False)
    assert difference(store["resid_pre", 1], model.record(images, ["resid_pre"], progress=False)["resid_pre", 1]) == 0


@pytest.mark.parametrize("kind", ["dinov2_registers", "siglip", "beit", "deit_two_heads", "torchvision"])
def test_models_of_other_libraries(kind: str) -> None:
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        model = cl.wrap(build_original(kind).to(device, dtype))
        images = torch.nn.functional.interpolate(image, model.image_size).to(device, dtype)
        with torch.no_grad():
            results.append([model(images)])
        if model.has_classifier:
            results[-1] += [m.all_scores for m in cl.caap(model, images, 1, progress=False)]
    check(*results, 7e-7, kind)


def test_a_whole_benchmark(tmp_path: Path) -> None:
    methods = ["caap", "E-CAAP=caap:attention=cached", "gen_att", "rollout", "legrad"]
    tables = []
    for device in (DEVICE, "cpu"):
        model = cl.load_model("demo", device=device)
        run = cl.benchmark(
            {"demo": model}, methods, "demo:two", images=2, out=tmp_path / device, protocol="xplique", progress=False
        )
        tables.append(run.to_dataframe().sort_values(["method", "image"]))
    columns = ["insertion", "deletion"]
    assert list(tables[0]["image"]) == list(tables[1]["image"]) and len(tables[0]) >= 10
    # A pixel whose place in the order turns on rounding changes a curve by one step of its many.
    assert difference(tables[0][columns].to_numpy(float), tables[1][columns].to_numpy(float)) < 1e-2
