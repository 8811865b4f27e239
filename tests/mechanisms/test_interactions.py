"""Interactions of pairs of patches, against four patched runs and identities."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from timm.models.vision_transformer import VisionTransformer

from caap_lab.models.tokens import neighbourhood
from helpers.cnns import small_cnn
from helpers.models import BY_TRAIT, TINY, build, random_images, randomise
from helpers.plain_caap import plain_sets
from helpers.timm_caap import timm_sets

CELLS = [(0, 0), (2, 1), (1, 1)]
"""Some are neighbours, whose neighbourhoods overlap."""


def interactions(model: Any, image: Any, target: Any = 0, **options: Any) -> cl.CaapInteractions:
    return cl.caap_interactions(model, image, target, **{"patches": CELLS, "progress": False, **options})


def check(family: str, context: str, cutoff: int, **settings: Any) -> None:
    """All classes' numbers are those of their definition, a run for each of its terms."""
    model = build(family, torch.float64)
    image, blank = random_images(model, 2)
    sets = [frozenset(neighbourhood(*cell).indices(model.spec)) for cell in CELLS]
    pairs = [(a | b, a & b) for a, b in product(sets, sets)]
    wanted = list({frozenset(), *sets, *(one for pair in pairs for one in pair)})
    tokens = [sorted(one) for one in wanted]
    if context in ("clamped", "free") and model.head is None and not settings:  # else timm has no such run
        logits = timm_sets(model.vit, model.spec, image, blank, cutoff, context, tokens)
    else:
        logits = plain_sets(model, image[None], tokens, cutoff=cutoff, blank=blank, context=context, **settings)
    f = dict(zip(wanted, logits.numpy(), strict=True))
    expected = np.array([[f[a | b] - f[a] - f[b] + f[frozenset()] for b in sets] for a in sets])
    beyond = np.array([[f[a | b] - f[a] - f[b] + f[a & b] for b in sets] for a in sets])
    found = interactions(model, image, {"a": 0, "b": 3}, cutoff=cutoff, blank=blank, context=context, **settings)
    apart = ~np.eye(len(CELLS), dtype=bool)
    for place, target in enumerate((0, 3)):
        matrix = found.per_image[0, ..., place]
        np.testing.assert_allclose(matrix[apart], expected[apart][:, target], atol=1e-10)
        np.testing.assert_allclose(found.data["beyond_overlap"].values[0, ..., place], beyond[..., target], atol=1e-10)
        np.testing.assert_allclose(found.for_target(target).per_image[0], matrix, atol=1e-12)
        assert (matrix == matrix.T).all() and (matrix.diagonal() == 0).all()
    assert found.data.attrs["runs"] == len(wanted) + (frozenset.union(*sets) not in wanted)


@pytest.mark.parametrize("family", BY_TRAIT)
def test_equal_to_four_patched_runs_of_timms_own_model(family: str) -> None:
    check(family, "clamped", 2)


def test_equal_to_four_patched_runs_in_other_contexts() -> None:
    check("dinov2_registers", "free", 3)
    check("siglip", "free", 2)
    check("vit", "frozen", 2)
    check("deit_distilled", "dropped", 2, start=1)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["clamped", "free", "frozen", "dropped"])
def test_equal_to_four_patched_runs_everywhere(family: str, context: str) -> None:
    if context == "dropped" and not build(family).spec.live_prefix:
        pytest.skip("dropped needs a class token")
    for cutoff in (1, 3, 4):
        check(family, context, cutoff)
    check(family, context, 3, start=1)


def linear_model() -> cl.HookedViT:
    """Attention that weighs all tokens alike, and nothing that bends."""

    class Plain(nn.Identity):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

    vit = randomise(lambda: VisionTransformer(**TINY, norm_layer=Plain, act_layer=Plain))
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.qkv.weight[: 2 * 24] = 0
            block.attn.qkv.bias[: 2 * 24] = 0
    return cl.HookedViT(vit).double()


def test_vanish_for_a_linear_model() -> None:
    model = linear_model()
    image = random_images(model, 1)
    # Elsewhere a patched token does not take up what the other brings to it, or takes it up only where it is live.
    for context, start, cutoff in (("free", 0, 1), ("free", 2, 3), ("clamped", 0, 4)):
        where = {"context": context, "start": start, "cutoff": cutoff}
        apart = interactions(model, image, 1, neighbourhood="none", **where)
        largest = np.abs(apart.data["single"].values).max()
        assert largest > 0.01 and np.abs(apart.per_image).max() < 1e-12 * max(1, largest)
        overlapping = interactions(model, image, 1, **where)
        assert np.abs(overlapping.per_image).max() > 0.01  # what neighbours share is counted twice
        assert np.abs(overlapping.data["beyond_overlap"].values).max() < 1e-11 * max(1, largest)
        shares = apart.shares().iloc[0]
        assert shares["joint"] == pytest.approx(shares["singles"]) and abs(shares["rest"]) < 1e-10


def test_top_patches_are_those_of_the_map() -> None:
    model = build("dinov2_registers", torch.float64)
    image = random_images(model, 1)
    found = interactions(model, image, None, patches="top5", attention="cached")
    caap = cl.caap(model, image, attention="cached")
    assert found.patches == caap.rank()[:5] and found.data.attrs["target"] == caap.target_name
    rise = found.effects[0] - found.effects[0].min()
    np.testing.assert_allclose(rise, (caap.scores - caap.scores.min()).numpy(), atol=1e-10)
    for score in ("prob", "logprob", "sigmoid"):
        read = interactions(model, image, 2, patches="top2", score=score)
        singles = cl.caap(model, image, 2, score=score)
        assert read.patches == singles.rank()[:2] and read.quantity == f"interaction ({score} of class 2)"
        rise = read.effects[0] - read.effects[0].min()
        np.testing.assert_allclose(rise, (singles.scores - singles.scores.min()).numpy(), atol=1e-10)


def test_several_images_and_targets() -> None:
    model = build("vit", torch.float64)
    images = random_images(model, 3)
    pair = cl.contrast(1, 2)
    found = interactions(model, images, {"own": [0, 1, 2], "pair": pair, "twice": lambda logits: 2 * logits[:, 4]})
    assert found.axes == {"patch": CELLS, "partner": CELLS, "target": ["own", "pair", "twice"]}
    alone = interactions(model, images[1], 1)
    np.testing.assert_allclose(found.per_image[1, ..., 0], alone.per_image[0], atol=1e-10)
    np.testing.assert_allclose(found.per_image[1, ..., 1], alone.for_target(pair).per_image[0], atol=1e-10)
    four = alone.for_target({"four": 4, "five": cl.logit(5)})
    np.testing.assert_allclose(found.per_image[1, ..., 2], 2 * four.per_image[0, ..., 0], atol=1e-10)
    assert found.standard_error.shape == (3, 3, 3) and len(found.shares()) == 9
    assert len(found.to_dataframe()) == 3 * 3 * 3 * 3
    direction = cl.direction(torch.randn(24, generator=torch.Generator().manual_seed(0)), "probe")
    along = interactions(model, images[0], direction)
    assert along.data.attrs["target"] == "probe" and np.abs(along.per_image).max() > 0
    with pytest.raises(cl.InputError, match="A direction needs a new run"):
        found.for_target(direction)
    with pytest.raises(cl.InputError, match="target=None: give one of 'own', 'pair', 'twice'"):
        found.partner_map(0, 0)
    assert found.partner_map(0, 0, target="pair").shape == (4, 4)


def test_maps_and_shares() -> None:
    model = build("vit")
    image = random_images(model, 1)
    found = interactions(model, image, patches="all", neighbourhood="none", chunk_size=50)
    partners = found.partner_map(2, 1)
    assert np.isnan(partners[2, 1]) and np.isnan(partners).sum() == 1
    np.testing.assert_array_equal(np.delete(partners.ravel(), 9), np.delete(found.mean[9], 9))
    np.testing.assert_allclose(found.pair_map().ravel(), found.mean.sum(axis=1) / 2)
    (row,) = found.shares().to_dict("records")
    assert row["joint"] == pytest.approx(row["singles"] + row["pairs"] + row["rest"]) and 0 <= row["pair_share"] <= 1
    two = interactions(model, image, patches=[(0, 0), (2, 2)])
    assert abs(two.shares()["rest"][0]) < 1e-5  # two patches have one pair
    strongest = found.strongest(3)
    assert len(strongest) == 3 and strongest["interaction"].abs().is_monotonic_decreasing
    assert strongest["interaction"].abs()[0] == np.abs(found.mean).max()
    some = interactions(model, image)
    assert np.isnan(some.partner_map(0, 0)).sum() == 16 - 2 and np.isnan(some.effects).sum() == 16 - 3
    with pytest.raises(cl.InputError, match=r"Patch \(3, 3\) is not among the chosen ones"):
        some.partner_map(3, 3)
    assert "32 runs" not in repr(found) and "forward passes" in repr(found)


def test_cost_is_counted() -> None:
    model = build("vit")
    found = interactions(model, random_images(model, 1), patches="all", neighbourhood="none", cutoff=2)
    pairs, n = 16 * 15 // 2, 16
    steps = (1 + pairs + n + 1 - 1) * 4 + 2 * (2 * pairs + n + n)  # class rows in 4 blocks, patch rows in blocks 1, 2
    assert found.data.attrs["runs"] == 1 + n + pairs + 1
    assert found.data.attrs["forward_passes"] == pytest.approx(1 + steps / (17 * 4), abs=1e-3)
    free = interactions(model, random_images(model, 1), context="free", neighbourhood="none", start=1, cutoff=2)
    assert free.data.attrs["forward_passes"] == pytest.approx(1 + (1 + 3 + 3 + 1) * 3 / 4)


def test_logits_that_take_too_much_memory_are_not_kept() -> None:
    model = build("vit")
    image = random_images(model, 1)
    found = interactions(model, image, max_memory=1e-9)
    np.testing.assert_allclose(found.per_image, interactions(model, image).per_image, atol=1e-5)
    with pytest.raises(cl.InputError, match="exceeded max_memory"):
        found.for_target(1)


def test_cells_of_a_cnn() -> None:
    model = small_cnn("resnet18", torch.float64, grid=(4, 4))
    image = random_images(model, 1)
    found = interactions(model, image, patches=[(0, 0), (3, 3), (1, 2)], neighbourhood="none")
    assert (found.per_image[0] == found.per_image[0].T).all() and np.abs(found.per_image).max() > 0
    assert found.data.attrs["context"] == "free"


def test_pictures() -> None:
    model = build("vit")
    found = interactions(model, random_images(model, 1), {"a": 0, "b": 1})
    figure = found.picture(2, 1, target="b")
    assert len(figure.axes) == 6 and "partners of (2, 1)" in figure.axes[1].get_title()
    assert found._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")
    assert found.plot_partners(0, 0, target="a").get_title() == "partners of (0, 0)"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"patches": "top1"}, "at least 2 are needed"),
    ({"patches": "top17"}, "grid has 16 patches"),
    ({"patches": "best"}, "use 'top10', 'all', or a list of cells"),
    ({"patches": [(0, 0), (4, 0)]}, r"Cell \(4, 0\) is outside the 4 x 4 grid"),
    ({"patches": [(0, 0), (0, 0)]}, "names a cell twice"),
    ({"patches": [(0, 0), 3]}, "3 is not a cell"),
    ({"tail": "shared"}, "omit tail"),
    ({"context": "free", "attention": "cached"}, "approximate context='clamped'"),
]


def test_refuses_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    image = random_images(model, 1)
    monkeypatch.setattr(model, "embed", lambda images: pytest.fail("it ran"))
    for options, message in REFUSED:
        with pytest.raises(cl.InputError, match=message):
            interactions(model, image, **options)


def test_refuses_other_patches_for_each_image_and_other_kinds() -> None:
    model = build("vit")
    with pytest.raises(cl.InputError, match="chooses different patches in each of the 2 images"):
        interactions(model, random_images(model, 2), patches="top3")
    with pytest.raises(cl.InputError, match="needs a hooked model"):
        cl.caap_interactions(model.vit, random_images(model, 1), 0)
