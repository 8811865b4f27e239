"""Enlarging maps to pixels: PyTorch's values, with the grid's ties kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import caap_lab as cl
from caap_lab.attribution.enlarge import MODES, enlarged
from caap_lab.metrics.changed_images import change_order
from helpers.models import build, random_images

SIZES = [
    ((14, 14), (224, 224)),
    ((16, 16), (224, 224)),
    ((5, 3), (40, 24)),
    ((7, 9), (50, 33)),
    ((4, 4), (4, 4)),
    ((9, 8), (4, 5)),
    ((1, 3), (8, 7)),
]


@pytest.fixture(scope="module")
def m() -> cl.AttributionMap:
    model = build("vit")
    return cl.attribute(model, random_images(model, 1), "input_x_gradient", 3)


def seen(m: cl.AttributionMap, scores: torch.Tensor, side: int) -> cl.AttributionMap:
    """A map of these scores of an image of this size."""
    return replace(m, scores=scores, image=torch.zeros(side, side, 3, dtype=torch.uint8))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_values_are_pytorchs(grid: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    scores = torch.randn(grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corners = {} if mode == "nearest-exact" else {"align_corners": False}
    expected = F.interpolate(scores[None, None], size, mode=mode, **corners)[0, 0]
    torch.testing.assert_close(enlarged(scores, size, mode), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_a_constant_grid_stays_constant(grid: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        for value in (0.1, -1 / 3, 5.2341, 1e-12, 0.0):
            large = enlarged(torch.full(grid, value, dtype=dtype), size, mode)
            assert (large == large[0, 0]).all()
            assert (large.to(dtype) == torch.tensor(value, dtype=dtype)).all() or dtype == torch.float64


@pytest.mark.parametrize("side", [224, 196])
def test_plateaus_of_equal_score_are_equal(side: int) -> None:
    """PyTorch's own enlargement gives each of these plateaus several values."""
    scores = torch.full((14, 14), 0.1)
    scores[2:6, 2:6] = scores[8:13, 7:12] = 0.7
    cell = side // 14
    for mode in ("bilinear", "bicubic"):
        large = enlarged(scores, (side, side), mode)
        reach = 2 if mode == "bicubic" else 1  # cells that a pixel's value depends on
        inner = [
            large[(top + reach) * cell : (bottom - reach) * cell, (left + reach) * cell : (right - reach) * cell]
            for top, bottom, left, right in ((1, 7, 1, 7), (7, 14, 6, 13))
        ]
        values = torch.cat([part[cell // 2 : -(cell // 2), cell // 2 : -(cell // 2)].flatten() for part in inner])
        assert len(values) > 100 and (values == values[0]).all()


def test_mirrored_and_turned_maps_have_mirrored_and_turned_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 7, generator=generator)
    for side in (98, 112):  # cells of 14 and 16 pixels
        mirrored = enlarged(scores.flip(1) + scores, (side, side))
        assert torch.equal(mirrored, mirrored.flip(1))
        turned = enlarged(scores.T + scores, (side, side))
        assert torch.equal(turned, turned.T)
        cubic = enlarged(scores.flip(1) + scores, (side, side), "bicubic")
        assert torch.equal(cubic, cubic.flip(1))


def test_a_constant_map_is_at_chance_in_every_metric(m: cl.AttributionMap) -> None:
    mask = np.zeros((224, 224), dtype=bool)
    mask[100:170, 60:130] = True
    prevalence = mask.mean()
    for upsampling in MODES:
        flat = cl.localisation(seen(m, torch.full((14, 14), 0.1), 224), mask, upsampling=upsampling)
        assert flat.aupr1 == pytest.approx(prevalence, abs=1e-12)
        assert flat.aupr0 == pytest.approx(1 - prevalence, abs=1e-12)
        assert (flat.mass_inside, flat.pointing_expected, flat.pointing) == (prevalence, prevalence, 0)


def test_a_map_of_nothing_patched_is_at_chance() -> None:
    model, scene = cl.load_model("demo"), cl.demo_images("single", 1, seed=0)[0]
    mask = model.preprocessing.mask(scene.masks[scene.label])
    for m in (cl.caap(model, scene.image, cutoff=0), cl.caap(model, scene.image, cutoff=0, batch_size=3)):
        found = cl.localisation(m, mask)
        assert found.aupr1 == pytest.approx(found.prevalence, abs=1e-12)


@pytest.mark.parametrize("upsampling", ["bilinear", "bicubic"])
def test_equal_pixels_change_in_reading_order(m: cl.AttributionMap, upsampling: str) -> None:
    constant = change_order(seen(m, torch.full((14, 14), 0.1), 224), upsampling)
    assert torch.equal(constant.flatten(), torch.arange(224 * 224))
    scores = torch.full((14, 14), 0.1)
    scores[:2] = 0.7
    stripe = change_order(seen(m, scores, 224), "bilinear")
    assert torch.equal(stripe.flatten(), torch.arange(224 * 224))  # rows of pixels fall from the top


def test_the_maps_own_enlargement_keeps_its_format(m: cl.AttributionMap) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert replace(m, scores=m.scores.to(dtype)).upsample().dtype == dtype
    torch.testing.assert_close(m.upsample(), enlarged(m.scores, (32, 32)).float(), rtol=0, atol=0)
