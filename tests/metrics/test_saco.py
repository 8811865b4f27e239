"""SaCo against the paper's algorithm in plain loops, its bounds, and what changes it and what does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import default_metrics, metric_column, parse_metric
from caap_lab.metrics.metric import MetricInput
from caap_lab.metrics.saco import coefficient
from caap_lab.models.targets import contrast
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return build("odd_grid", torch.float64)


@pytest.fixture(scope="module")
def images(model: cl.HookedViT) -> torch.Tensor:
    return random_images(model, 2)


def a_map(model: cl.HookedViT, image: torch.Tensor, scores: torch.Tensor, target: object = 3) -> cl.AttributionMap:
    return replace(cl.attribute(model, image, "input_x_gradient", 3), scores=scores, target=target)


def plain_saco(model: cl.HookedViT, image: torch.Tensor, scores: torch.Tensor, read, groups: int) -> float:
    """Algorithm 1 with one forward pass per group; scores [height, width] of pixels, groups of equal size."""
    height, width = scores.shape
    pixels = sorted(range(height * width), key=lambda p: (-float(scores[p // width, p % width]), p))
    whole = read(model(image)[0])
    sums, effects = [], []
    for g in range(groups):
        group = pixels[g * len(pixels) // groups : (g + 1) * len(pixels) // groups]
        changed = image.clone()
        for p in group:
            changed[0, :, p // width, p % width] = image[0].mean(dim=(1, 2))
        sums.append(sum(float(scores[p // width, p % width]) for p in group))
        effects.append(float(whole - read(model(changed)[0])))
    score = weight = 0.0
    for i in range(groups - 1):
        for j in range(i + 1, groups):
            w = sums[i] - sums[j] if effects[i] >= effects[j] else -(sums[i] - sums[j])
            score, weight = score + w, weight + abs(w)
    return score / weight


READ = {
    "class": (3, lambda logits: logits.softmax(0)[3]),
    "contrast of two": (contrast(3, 5), lambda logits: torch.sigmoid(logits[3] - logits[5])),
    "contrast to all": (contrast(3), lambda logits: (logits - logits.mean()).softmax(0)[3]),
    "function": (lambda logits: logits[:, 1] ** 2, lambda logits: logits[1] ** 2),
}


@pytest.mark.parametrize("name", READ)
@torch.no_grad()
def test_it_equals_a_plain_loop(model: cl.HookedViT, images: torch.Tensor, name: str) -> None:
    target, read = READ[name]
    scores = torch.randn(model.grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = a_map(model, images[:1], scores, target)
    pixels = m.upsample(mode="nearest-exact")
    for groups in (2, 10):  # 960 pixels, so that all groups are equal
        found = cl.saco(model, images[:1], m, groups=groups, upsampling="nearest-exact", batch_size=3)
        assert found.value == pytest.approx(plain_saco(model, images[:1], pixels, read, groups), abs=1e-10)
        assert len(found.group_scores) == len(found.group_effects) == groups
        assert (np.diff(found.group_scores) <= 1e-12).all()
    by_target = cl.saco(model, images[:1], replace(m, target=0), target=target, upsampling="nearest-exact")
    assert by_target.value == found.value


def test_bounds_ties_and_signs() -> None:
    falling = np.array([3.0, 1.0, 0.0, -4.0])
    assert coefficient(falling, np.array([0.9, 0.5, 0.1, -0.2])) == 1
    assert coefficient(falling, np.array([-0.2, 0.1, 0.5, 0.9])) == -1
    assert coefficient(falling, np.zeros(4)) == 1  # equal effects count for the map, as in the paper
    assert coefficient(falling, np.array([0.5, 0.9, 0.1, -0.2])) == pytest.approx(1 - 2 * 2 / 22)
    assert coefficient(np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0, -1.0])) == 1  # a tie of scores weighs nothing
    assert np.isnan(coefficient(np.ones(4), np.arange(4.0)))


def test_scale_and_offset_change_nothing_and_the_scores_themselves_do(
    model: cl.HookedViT, images: torch.Tensor
) -> None:
    scores = torch.randn(model.grid, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    maps = [a_map(model, images[:1], s) for s in (scores, 7 * scores + 100, -scores, scores.exp() ** 3)]
    first, moved, turned, stretched = cl.saco(model, images[:1], maps, progress=False)
    assert moved.value == pytest.approx(first.value, abs=1e-9)
    assert stretched.value != pytest.approx(first.value, abs=1e-3) and -1 <= stretched.value <= 1
    assert -1 <= turned.value <= 1
    other = a_map(model, images[1:], scores)
    both = cl.saco(model, images, [maps[0], other], batch_size=4, progress=False)
    assert both[0].value == pytest.approx(first.value, abs=1e-10)
    assert both[1].value == pytest.approx(cl.saco(model, images[1:], other).value, abs=1e-10)


def test_a_constant_map_has_none_also_where_groups_differ_in_size(model: cl.HookedViT, images: torch.Tensor) -> None:
    constant = a_map(model, images[:1], torch.full(model.grid, 0.1))
    assert np.isnan(cl.saco(model, images[:1], constant, groups=7).value)
    with pytest.raises(InputError, match="groups=1 must be a number from 2 to 960"):
        cl.saco(model, images[:1], constant, groups=1)
    with pytest.raises(InputError, match="another image"):
        cl.saco(model, images[1:], constant)


class Linear(nn.Module):
    """Two logits, which are the weighted sum of the cells' brightness and its negative."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = (nn.functional.avg_pool2d(x, 8).mean(1) * self.weights).sum((1, 2))
        return torch.stack([light, -light], dim=1)


def test_a_map_of_the_effects_themselves_has_one_and_its_negative_minus_one() -> None:
    generator = torch.Generator().manual_seed(2)
    black_box = cl.wrap(Linear(torch.randn(4, 4, generator=generator)), grid=(4, 4), image_size=(32, 32))
    image = torch.randn(1, 3, 32, 32, generator=generator)
    cells = nn.functional.avg_pool2d(image - image.mean(dim=(2, 3), keepdim=True), 8).mean(1)[0]
    effects = (black_box.body.weights * cells).detach()
    m = replace(cl.attribute(black_box, image, "simple_deletion", 0), scores=effects)
    options = {"groups": 16, "upsampling": "nearest-exact"}
    assert cl.saco(black_box, image, m, **options).value == 1
    assert cl.saco(black_box, image, replace(m, scores=-effects), **options).value == -1
    assert cl.saco(black_box, image, m, target=1, **options).value == -1


def test_it_is_a_metric_with_options(model: cl.HookedViT, images: torch.Tensor, tmp_path: Path) -> None:
    assert "saco" not in default_metrics(has_masks=True)
    column = metric_column("saco")
    assert (column.better, column.unit, column.label) == ("higher", "", "SaCo")
    m = a_map(model, images[:1], torch.randn(model.grid, dtype=torch.float64))
    metric, variant = parse_metric("saco:groups=4,upsampling=nearest-exact")
    row = metric.values(MetricInput(model, images[:1], m), variant.options)
    assert row == {"saco": cl.saco(model, images[:1], m, groups=4, upsampling="nearest-exact").value}
    options = {"images": 1, "metrics": ["saco"], "progress": False}
    result = cl.benchmark("demo", ["grad_cam"], "demo:single", out=tmp_path, **options)
    frame = result.to_dataframe()
    demo, sample = cl.load_model("demo"), cl.open_images("demo:single").named(frame["image"][0])
    found = cl.saco(demo, sample.image, cl.attribute(demo, sample.image, "grad_cam"))
    assert frame["saco"][0] == found.value and -1 <= found.value <= 1
    assert "SaCo as a plain number" in result._repr_html_()
