"""Ranks of a map, differences of two, and maps as tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import AttributionMap, InputError
from caap_lab.attribution.map import settings_text
from caap_lab.attribution.map_file import read_map
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return build("vit")


@pytest.fixture(scope="module")
def caap(model: cl.HookedViT) -> AttributionMap:
    return cl.caap(model, random_images(model, 1), 3)


@pytest.fixture(scope="module")
def rollout(model: cl.HookedViT) -> AttributionMap:
    return cl.attribute(model, random_images(model, 1), "rollout", 5)


def test_ranks_are_shares_of_lower_patches(caap: AttributionMap) -> None:
    scores = torch.tensor([[5.0, -2.0, 5.0], [7.0, 0.0, 5.0]])
    m = replace(caap, scores=scores, all_scores=None)
    ranks = m.ranks()
    plain = [[((scores < one).sum() + ((scores == one).sum() - 1) / 2) / 5 for one in row] for row in scores]
    np.testing.assert_allclose(ranks.scores, plain, atol=1e-7)
    assert float(ranks.scores.min()) == 0 and float(ranks.scores.max()) == 1
    assert ranks.score == "rank" and ranks.sign == "level" and ranks.all_scores is None
    assert ranks.plot().axes[-1].get_ylabel() == "rank, 0 the lowest to 1 the highest"
    assert torch.equal(replace(m, scores=torch.zeros(2, 2)).ranks().scores, torch.full((2, 2), 0.5))
    assert ranks.rank() == m.rank()
    holes = replace(m, scores=torch.tensor([[1.0, float("nan"), 3.0, 2.0]])).ranks().scores
    assert holes[0, [0, 2, 3]].tolist() == [0, 1, 0.5] and bool(holes[0, 1].isnan())


def test_a_difference_says_what_was_subtracted_from_what(caap: AttributionMap, model: cl.HookedViT) -> None:
    image = random_images(model, 1)
    early = cl.caap(model, image, 3, cutoff=1)
    found = caap - early
    assert torch.equal(found.scores, caap.scores - early.scores) and found.sign == "signed"
    cutoff = caap.settings["cutoff"]
    assert found.method == f"caap (cutoff {cutoff}) - caap (cutoff 1)" and found.target == 3
    assert found.settings["first"]["cutoff"] == cutoff and found.settings["second"]["cutoff"] == 1
    assert found.score == found.unit == "difference in logit" and found.fingerprint == caap.fingerprint
    figure = found.plot()
    assert figure.axes[1].get_title() == f"{found.method} for 'class 3'"
    assert figure.axes[-1].get_ylabel() == "difference in logit"
    assert figure.get_supxlabel().startswith(f"first (cutoff {cutoff}), second (cutoff 1), method caap")
    assert repr(found).startswith(f"AttributionMap: {found.method} of")
    with pytest.raises(InputError, match="one target at a time"):
        found.for_target(1)
    nested = found - (early - caap)
    assert nested.score == "difference in logit" and nested.method == f"({found.method}) - ({(early - caap).method})"


def test_a_difference_of_two_classes_is_their_contrast(caap: AttributionMap, model: cl.HookedViT) -> None:
    found = caap - caap.for_target(1)
    contrast = caap.for_target(cl.contrast(3, 1))
    torch.testing.assert_close(found.scores, contrast.scores)
    assert found.target == contrast.target and found.caption == contrast.caption == "class 3 rather than class 1"
    assert found.method == "caap - caap"


def test_methods_are_compared_by_ranks(caap: AttributionMap, rollout: AttributionMap) -> None:
    with pytest.raises(InputError, match=r"units differ. Compare their ranks: a.ranks\(\) - b.ranks\(\)"):
        caap - rollout
    found = caap.ranks() - rollout.ranks()
    assert found.method == "caap - rollout" and found.score == "difference in rank"
    assert (found.target, found.caption) == (3, "'class 3'")  # rollout's map is of any class
    assert (rollout.ranks() - caap.ranks()).caption == "'class 3'"
    assert (rollout.ranks() - rollout.ranks()).caption == "any class"
    assert float(found.scores.abs().max()) <= 1


def test_maps_that_cannot_be_subtracted(caap: AttributionMap) -> None:
    for other, message in [
        (replace(caap, image=255 - caap.image), "maps of different images"),
        (replace(caap, scores=caap.scores[:1], all_scores=None), "only maps on the same grid"),
        (replace(caap, score="prob"), "caap is logit, but one of caap is prob"),
    ]:
        with pytest.raises(InputError, match=message):
            caap - other
    with pytest.raises(TypeError):
        caap - 1


def test_a_difference_is_kept_in_a_file(caap: AttributionMap, tmp_path: Path) -> None:
    found = caap - caap.for_target(1)
    again = AttributionMap.load(found.save(tmp_path / "difference.safetensors"))
    assert repr(again) == repr(found) and torch.equal(again.scores, found.scores) and again.target == found.target
    unclear = caap.for_target(cl.contrast(1, 2)) - caap.for_target(cl.contrast(3, 4))
    assert unclear.caption == "class 1 rather than class 2 - class 3 rather than class 4"
    assert read_map(unclear.save(tmp_path / "m.safetensors"))["target_name"] == unclear.caption


def test_a_map_as_a_table(caap: AttributionMap) -> None:
    frame = caap.to_dataframe()
    assert list(frame.columns) == ["row", "col", "score", "rank"] and len(frame) == caap.scores.numel()
    for row in frame.itertuples():
        assert row.score == float(caap.scores[row.row, row.col])
        assert row.rank == float(caap.ranks().scores[row.row, row.col])


def test_no_map_says_minus_zero(caap: AttributionMap) -> None:
    m = replace(caap, scores=torch.tensor([[-1e-9, 1.0]]), all_scores=None)
    assert "logit 0.000 to 1.000" in repr(m)


def test_settings_of_a_difference_name_what_is_shared_once(model: cl.HookedViT, caap: AttributionMap) -> None:
    shared = settings_text({key: value for key, value in caap.settings.items() if key != "cutoff"})
    deeper = cl.caap(model, random_images(model, 1), 3, cutoff=1)
    text = settings_text((deeper - caap).settings)
    assert text == f"first (cutoff 1), second (cutoff {caap.settings['cutoff']}), method caap, {shared}"
    assert settings_text((caap - caap.for_target(1)).settings) == f"method caap, {settings_text(caap.settings)}"
