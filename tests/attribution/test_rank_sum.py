"""`rank_sum`: the sum of two maps' ranks, against the plain definition, for any target and any two methods."""

from typing import Any

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.rank_sum import rank_sums
from caap_lab.attribution.registry import METHODS, method_digest
from helpers.models import build, random_images


def plain_ranks(scores: torch.Tensor) -> torch.Tensor:
    """Share of the other patches that are lower; half of those that are equal."""
    flat = scores.double().flatten()
    lower = (flat[:, None] > flat).sum(1) + ((flat[:, None] == flat).sum(1) - 1) / 2
    return (lower / (len(flat) - 1)).reshape(scores.shape)


def test_it_is_the_sum_of_both_ranks() -> None:
    model = build("vit")
    images = random_images(model, 2)
    for target in (3, cl.contrast(2, 5), cl.contrast(1), lambda logits: logits[:, :3].logsumexp(1)):
        found = cl.attribute(model, images, "rank_sum", target, progress=False)
        parts = [cl.attribute(model, images, name, target, progress=False) for name in ("caap", "libra_ixg_plus")]
        for m, one, other in zip(found, *parts, strict=True):
            assert (m.scores - plain_ranks(one.scores) - plain_ranks(other.scores)).abs().max() < 1e-6
            assert m.target_name == one.target_name and m.all_scores is None


def test_parts_are_methods_as_text_with_their_options() -> None:
    model = build("vit")
    image = random_images(model, 1)
    text = 'rank_sum:first=caap:direction=remove,second="caap:cutoff=2,neighbourhood=none"'
    found = cl.attribute(model, image, text)
    parts = [
        cl.caap(model, image, found.target, direction="remove"),
        cl.caap(model, image, found.target, cutoff=2, neighbourhood="none"),
    ]
    assert (found.scores - sum(plain_ranks(m.scores) for m in parts)).abs().max() < 1e-6
    assert found.settings["first"] == {"method": "caap", **parts[0].settings}
    assert found.settings["second"] == {"method": "caap", **parts[1].settings}
    assert found.unit == "sum of two ranks, each from 0 to 1"
    size = ModelSize.of(model)
    whole = METHODS["rank_sum"].passes(size, {"second": "rise:samples=50"})
    assert whole == METHODS["caap"].passes(size) + METHODS["rise"].passes(size, {"samples": 50})


def test_ties_are_exact_and_have_mean_ranks() -> None:
    grid = torch.tensor([[1.0, 5.0, 5.0], [2.0, 7.0, 3.0]])
    (found,) = rank_sums([grid[None], grid.flip(0)[None]], (2, 3))
    expected = plain_ranks(grid) + plain_ranks(grid.flip(0))
    assert (found - expected).abs().max() < 1e-6
    assert torch.equal(found[0], found[1])  # equal sums are equal to the last bit
    (constant,) = rank_sums([torch.zeros(1, 2, 3)] * 2, (2, 3))
    assert torch.equal(constant, torch.ones(2, 3))


def test_maps_of_other_sizes_are_brought_to_the_grid() -> None:
    fine = torch.arange(64.0).reshape(1, 8, 8)
    coarse = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    (found,) = rank_sums([fine, coarse], (4, 4))
    means = fine[0].reshape(4, 2, 4, 2).mean((1, 3))
    enlarged = torch.nn.functional.interpolate(coarse[None].double(), (4, 4), mode="bilinear")[0, 0]
    assert (found - plain_ranks(means) - plain_ranks(enlarged)).abs().max() < 1e-6


def test_on_a_cnn_and_with_a_method_of_ones_own() -> None:
    model = cl.load_model("demo-cnn")
    image = cl.demo_images("single", 1, seed=0)[0].image
    found = cl.attribute(model, image, "rank_sum:first=simple_deletion,second=input_x_gradient")
    parts = [cl.attribute(model, image, name, found.target) for name in ("simple_deletion", "input_x_gradient")]
    assert (found.scores - sum(plain_ranks(m.scores) for m in parts)).abs().max() < 1e-6
    cl.register("corner", lambda model, images, targets: torch.eye(8).expand(len(images), 8, 8), reads="pixels")
    try:
        cl.attribute(model, image, "rank_sum:first=corner")
        assert method_digest("rank_sum", {"first": "corner"}) == method_digest("corner") != ""
    finally:
        del METHODS["corner"]
    assert method_digest("rank_sum") == ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit", {"first": "capp"}, "first='capp': there is no method 'capp'. Nearest: caap"),
        ("vit", {"second": None}, "second=None is not a method as text"),
        ("vit", {"second": "caap:cutof=3"}, "caap has no option 'cutof'"),
        ("vit", {"second": "caap:cutoff=9"}, "cutoff=9 must lie from 0"),
        ("vit", {"first": "caap:score=prob"}, "is a probability, but the target"),
        ("demo-cnn", {"second": "rollout"}, "rollout works on Vision Transformers"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    name: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("vit") if name == "vit" else cl.load_model(name)
    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    with pytest.raises(cl.InputError, match=message):
        cl.attribute(model, torch.zeros(1, 3, *model.image_size), "rank_sum", lambda logits: logits[:, 0], **options)
