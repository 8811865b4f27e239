"""Patched runs of any sets of patches, against the plain definition."""

import pytest
import torch

import caap_lab as cl
from caap_lab.engine.sets import PatchSets
from caap_lab.engine.settings import CaapSettings
from helpers.cnns import small_cnn
from helpers.models import build, random_images
from helpers.plain_caap import plain_sets


def random_sets(n_patches: int, count: int) -> torch.Tensor:
    """No patch, all of them, and random sets between."""
    masks = torch.rand(count, n_patches, generator=torch.Generator().manual_seed(0)) < 0.3
    masks[0], masks[1] = False, True
    return masks


def check_sets(family: str, **settings: object) -> None:
    model = build(family, torch.float64)
    image = random_images(model, 1)
    masks = random_sets(model.spec.n_patches, 6)
    found = PatchSets.of(model, CaapSettings(**settings)).of_image(image).all_logits(masks)
    tokens = [(mask.nonzero()[:, 0] + model.spec.n_prefix).tolist() for mask in masks]
    plain = {key: value for key, value in settings.items() if key in ("cutoff", "start", "blank", "context")}
    torch.testing.assert_close(found, plain_sets(model, image, tokens, **plain), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("family", ["conv_stem", "dino_head4"])  # tests of interactions run more
def test_sets_are_patched_as_defined(family: str) -> None:
    check_sets(family, cutoff=2)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"cutoff": 3}, {"cutoff": 4}, {"cutoff": 3, "start": 1}, {"cutoff": 1}])
@pytest.mark.parametrize("context", ["clamped", "free", "frozen", "dropped"])
def test_sets_are_patched_as_defined_in_every_family_and_context(family: str, context: str, settings: dict) -> None:
    if context == "dropped" and not build(family).spec.live_prefix:
        pytest.skip("dropped needs a class token")
    check_sets(family, context=context, **settings)


def test_contexts_blanks_and_small_chunks() -> None:
    blank = cl.blanks.mean_activations(random_images(build("vit", torch.float64), 2, seed=3))
    for context in ("free", "frozen", "dropped"):
        check_sets("dinov2_registers", cutoff=2, context=context, blank="zero_activations", chunk_size=2)
    check_sets("siglip", cutoff=3, start=1, chunk_size=1)
    check_sets("vit", cutoff=2, blank=blank, context="free", start=1)


def test_sets_of_single_neighbourhoods_are_the_map() -> None:
    model = build("dinov2_registers", torch.float64)
    image = random_images(model, 1)
    for attention in ("cached", "cached_all"):
        sets = PatchSets.of(model, CaapSettings(attention=attention, cutoff=2))
        found = sets.of_image(image).all_logits(sets.neighbourhoods)
        expected = cl.caap(model, image, 0, attention=attention, cutoff=2).all_scores
        torch.testing.assert_close(found, expected.flatten(0, 1), atol=1e-10, rtol=1e-10)


def test_sets_of_a_cnns_cells() -> None:
    model = small_cnn("resnet18")
    image = random_images(model, 1)
    sets = PatchSets.of(model, CaapSettings(cutoff=2))
    runs = sets.of_image(image, own=True)
    found = runs.all_logits(sets.neighbourhoods)
    torch.testing.assert_close(found, cl.caap(model, image, 0, cutoff=2).all_scores.flatten(0, 1))
    every = torch.ones(1, len(sets.neighbourhoods), dtype=torch.bool)
    whole = PatchSets.of(model, CaapSettings(cutoff=model.n_layers)).of_image(image)
    torch.testing.assert_close(whole.all_logits(every), runs.own)
    assert runs.distance(every[0]) > 0


def test_approximate_tails_are_refused() -> None:
    with pytest.raises(cl.InputError, match="omit tail"):
        PatchSets.of(build("vit"), CaapSettings(tail="shared"))
