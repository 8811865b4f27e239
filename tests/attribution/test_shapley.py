"""Shapley values against their definition, and what the estimate promises: no bias, true errors, a stop in time."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab.attribution.masking import pixel_mask
from caap_lab.attribution.shapley import shapley
from caap_lab.attribution.shapley_estimate import draw_sets, shapley_estimate
from caap_lab.engine.blanks import blank_image
from helpers.black_boxes import PlainNet
from helpers.models import build, random_images, randomise
from helpers.passes import Passes
from helpers.targets import of_classes


def values_of_all_sets(n: int, seed: int = 0) -> Tensor:
    """A game with interactions of all orders, and more gain by the first players than by the last."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    random = torch.randn(2**n, generator=generator, dtype=torch.float64, device="cpu")
    size = torch.tensor([bin(index).count("1") for index in range(2**n)], dtype=torch.float64, device="cpu")
    return random / 4 + size.sqrt()


def exact(values: Tensor, n: int) -> Tensor:
    """The definition: for each player, all sets of the others."""
    found = torch.zeros(n, dtype=torch.float64, device="cpu")
    for player in range(n):
        others = [other for other in range(n) if other != player]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for chosen in combinations(others, size):
                without = sum(2**other for other in chosen)
                found[player] += weight * (values[without + 2**player] - values[without])
    return found


def estimate(values: Tensor, n: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    sets = draw_sets(n, count, torch.Generator(device="cpu").manual_seed(seed))
    index = (sets.long() * 2 ** torch.arange(n, device="cpu")).sum(dim=1)
    halves = (values[index] - values[2**n - 1 - index]) / 2
    return shapley_estimate(sets, halves, float(values[-1] - values[0]))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_many_samples_give_the_definition(n: int) -> None:
    values = values_of_all_sets(n)
    found, errors = estimate(values, n, 2000, 1)
    assert float(found.sum()) == pytest.approx(float(values[-1] - values[0]), abs=1e-9)
    assert float((found - exact(values, n)).abs().max()) < 4.5 * float(errors.max()) + 1e-9
    assert float(errors.max()) < 0.04


def test_few_samples_have_no_bias_and_true_errors() -> None:
    """Over many draws the mean is the definition, and the spread what the standard errors say."""
    n, draws = 6, 250
    values = values_of_all_sets(n)
    found, errors = (
        torch.stack(part) for part in zip(*(estimate(values, n, 20, s) for s in range(draws)), strict=True)
    )
    spread = found.std(dim=0)
    assert float(((found.mean(dim=0) - exact(values, n)) / (spread / draws**0.5)).abs().max()) < 3.5
    stated = errors.square().mean(dim=0).sqrt()
    assert float((stated / spread).min()) > 0.85 and float((stated / spread).max()) < 1.25


def test_more_sets_begin_with_the_same_ones() -> None:
    few, many = (draw_sets(7, count, torch.Generator(device="cpu").manual_seed(3)) for count in (5, 9))
    assert torch.equal(few, many[:5])
    assert ((many.sum(dim=1) > 0) & (many.sum(dim=1) < 7)).all()


@pytest.mark.parametrize("score", ["logit", "prob"])
def test_an_image_s_values_are_those_of_the_definition(score: str) -> None:
    """On a grid of 2 x 3, every set of patches is run."""
    model = cl.BlackBoxModel(randomise(PlainNet).double(), grid=(2, 3), image_size=(24, 36))
    (image,) = random_images(model, 1)
    blank = blank_image(model, "mean")
    masks = torch.tensor([[bool(index >> bit & 1) for bit in range(6)] for index in range(64)], device="cpu")
    with torch.no_grad():
        logits = model(torch.where(pixel_mask(model, masks), image, blank))
    values = logits[:, 2] if score == "logit" else logits.softmax(dim=1)[:, 2]
    m = cl.attribute(model, image, "shapley", 2, blank="mean", score=score, samples=1000)
    assert m.score == f"attribution to {score}" and m.standard_errors is not None
    off = m.scores.flatten() - exact(values, 6)
    assert float(off.abs().max()) < 4.5 * float(m.standard_errors.max())
    assert float(m.standard_errors.max()) < 0.1 * float(np.ptp(exact(values, 6).numpy()))


def test_values_add_up_to_what_the_image_says_more_than_the_blank() -> None:
    model = build("vit", torch.float64)
    images = random_images(model, 2)
    with torch.no_grad():
        whole = cl.contrast(1, 3), model(images), model(blank_image(model, "white"))
    expected = (whole[1] - whole[2])[:, 1] - (whole[1] - whole[2])[:, 3]
    maps = cl.attribute(model, images, "shapley", whole[0], samples=40, progress=False)
    for m, total in zip(maps, expected, strict=True):
        assert float(m.scores.double().sum()) == pytest.approx(float(total), abs=1e-5)


def test_it_stops_when_it_is_certain_enough() -> None:
    """After the first round, where every patch says the same; at the most samples, where nothing suffices."""
    model = build("vit")
    image = random_images(model, 1)
    torch.nn.init.zeros_(model.vit.head.weight)
    with Passes(model) as passes:
        shapley(model, image, of_classes([1]), samples=2400, until=0.5, chunk_size=500)
    assert passes.forwards == 1002


def test_standard_errors_stay_with_the_map(tmp_path) -> None:
    model = build("vit")
    m = cl.attribute(model, random_images(model, 1), "shapley", 3, samples=20)
    again = cl.AttributionMap.load(m.save(tmp_path / "map.safetensors"))
    assert torch.equal(again.standard_errors, m.standard_errors)
    table = m.to_dataframe()
    assert np.allclose(table.standard_error, m.standard_errors.flatten())
    assert m.ranks().standard_errors is None and (m - m).standard_errors is None
    assert "standard_error" not in m.ranks().to_dataframe()
    with pytest.raises(cl.InputError, match="score='prob' is a probability"):
        cl.attribute(model, random_images(model, 1), "shapley", lambda logits: logits.sum(dim=1), score="prob")
