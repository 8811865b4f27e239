"""Neighbourhoods and scores that are added: one table each, and all of CAAP knows them."""

from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab.bench.own_code import install, packed
from caap_lab.engine.interpolation import tail_rows
from caap_lab.engine.scores import SCORES, Score
from caap_lab.models.neighbour_tables import neighbourhood_table
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS, Neighbourhood, register_neighbourhood
from helpers.cnns import small_cnn
from helpers.models import build, random_images
from helpers.plain_caap import plain_scores

OWN = {
    "own row": [(0, -1), (0, 0), (0, 1)],
    "own corner": [(0, 0), (0, 1), (1, 0)],  # not symmetric
    "own far": [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (-1, -1)],  # clipped on all sides of a small grid
}


@pytest.fixture(autouse=True)
def own() -> None:
    for name, offsets in OWN.items():
        cl.register_neighbourhood(name, offsets)


@pytest.mark.parametrize("context", ["clamped", "free", "dropped", "frozen"])
@pytest.mark.parametrize("kind", OWN)
def test_an_own_neighbourhood_is_patched_as_defined(kind: str, context: str) -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    found = cl.caap(model, image, 0, cutoff=2, neighbourhood=kind, context=context)
    expected = plain_scores(model, image, cutoff=2, neighbourhood_kind=kind, context=context)
    torch.testing.assert_close(found.all_scores, expected, atol=1e-10, rtol=1e-10)
    assert found.settings["neighbourhood"] == kind


@pytest.mark.parametrize("kind", OWN)
def test_approximate_tails_know_it_or_refuse_it(kind: str) -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    exact = cl.caap(model, image, 0, cutoff=4, neighbourhood=kind)
    shared = cl.caap(model, image, 0, cutoff=4, neighbourhood=kind, tail="shared")  # exact where nothing evolves
    torch.testing.assert_close(shared.all_scores, exact.all_scores, atol=1e-10, rtol=0)
    if kind == "own corner":
        assert not NEIGHBOURHOODS[kind].can_be_interpolated
        with pytest.raises(cl.InputError, match="tail='interpolated' needs a neighbourhood that has the opposite"):
            cl.caap(model, image, 0, neighbourhood=kind, tail="interpolated")
        return
    found = cl.caap(model, image, 0, cutoff=4, neighbourhood=kind, tail="interpolated")
    torch.testing.assert_close(found.all_scores, exact.all_scores, atol=1e-10, rtol=0)


def test_interpolation_of_an_own_neighbourhood_keeps_affine_functions_at_the_border() -> None:
    grid = (4, 5)
    table = neighbourhood_table(grid, "own far")
    lent = tail_rows(table, OWN["own far"], "interpolated")
    cells = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    group, neighbour = lent.run // table.shape[1], lent.run % table.shape[1]
    rows = torch.nn.functional.pad(cells[group] - cells[table[group, neighbour]], (1, 0), value=1.0)
    read = lent.contexts(rows)[lent.reads]
    groups = torch.arange(len(table))[:, None].expand_as(table)
    expected = torch.nn.functional.pad(cells[groups] - cells[table.clamp(min=0)], (1, 0), value=1.0)
    torch.testing.assert_close(read[table >= 0], expected[table >= 0])


def test_a_name_that_is_registered_again_has_its_new_offsets_at_once() -> None:
    model = build("vit")
    image = random_images(model, 1)
    before = cl.caap(model, image, 0, neighbourhood="own row").scores
    register_neighbourhood("own row", [(0, 0), (1, 0), (-1, 0)])
    after = cl.caap(model, image, 0, neighbourhood="own row").scores
    assert not torch.allclose(before, after)


def test_own_neighbourhoods_are_choices_of_tokens_of_cnns_and_of_sweeps() -> None:
    assert cl.tokens.neighbourhood(0, 0, "own corner").indices(build("vit").spec) == [1, 2, 5]
    cnn = small_cnn("resnet18")
    assert cl.caap(cnn, torch.zeros(3, 64, 64), 0, neighbourhood="own corner").settings["neighbourhood"] == "own corner"
    model = build("vit")
    swept = cl.sweep_neighbourhoods(model, random_images(model, 1), 0, metrics=(), progress=False)
    assert set(OWN) <= set(swept.labels)


def test_trials_are_kept_under_the_offsets_of_an_own_neighbourhood(tmp_path: Path) -> None:
    """The name alone would give a changed neighbourhood the numbers of its older self."""
    model, images = cl.load_model("demo"), cl.open_images("demo:single")[:1]
    quick = {"out": tmp_path, "metrics": (), "progress": False}
    before = cl.sweep_neighbourhoods(model, images, neighbourhoods=["own row", "none"], **quick)
    register_neighbourhood("own row", [(0, 0), (1, 0), (-1, 0)])
    after = cl.sweep_neighbourhoods(model, images, neighbourhoods=["own row", "none"], **quick)
    assert (before.maps[:, 0] != after.maps[:, 0]).any() and (before.maps[:, 1] == after.maps[:, 1]).all()


def test_workers_get_own_neighbourhoods_as_they_are_now() -> None:
    code = packed(["caap"])
    for name in OWN:
        del NEIGHBOURHOODS[name]
    install(code)
    assert {name: list(NEIGHBOURHOODS[name]) for name in OWN} == OWN
    register_neighbourhood("own row", [(0, 0)])
    newer = packed(["caap"])
    install(code)
    assert list(NEIGHBOURHOODS["own row"]) == OWN["own row"]
    install(newer)
    assert list(NEIGHBOURHOODS["own row"]) == [(0, 0)]


def test_what_is_no_neighbourhood_is_refused() -> None:
    for name, offsets, message in [
        ("box1", [(0, 0)], "'box1' is a built-in neighbourhood"),
        ("", [(0, 0)], "needs a name"),
        (None, [(0, 0)], "needs a name"),
        ("mine", [], "list of pairs"),
        ("mine", None, "list of pairs"),
        ("mine", [(0, 0, 0)], "list of pairs"),
        ("mine", [(0, 0), (0.5, 1)], "list of pairs"),
        ("mine", [(0, 1)], "add .0, 0. to its offsets"),
    ]:
        with pytest.raises(cl.InputError, match=message):
            register_neighbourhood(name, offsets)  # type: ignore[arg-type]
    assert "mine" not in NEIGHBOURHOODS


def test_a_neighbourhood_is_still_a_list_of_offsets() -> None:
    assert (0, 1) in cl.tokens.NEIGHBOURHOODS["cross1"] and len(cl.tokens.NEIGHBOURHOODS["box2"]) == 25
    assert all(kind.can_be_interpolated for name, kind in NEIGHBOURHOODS.items() if name not in OWN)
    assert Neighbourhood(((0, 0), (0, 1))).can_be_interpolated is False


def test_an_own_score_is_read_listed_and_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits.float() - logits.float().mean(dim=-1, keepdim=True)

    monkeypatch.setitem(SCORES, "own margin", Score(margin, swept=True))
    model = build("vit")
    image = random_images(model, 1)
    logits = cl.caap(model, image, 2)
    found = cl.caap(model, image, 2, score="own margin")
    assert found.score == "own margin"
    assert any("own margin of class 2, patch inserted" in ax.get_ylabel() for ax in found.plot().axes)
    torch.testing.assert_close(found.all_scores, margin(logits.all_scores))
    swept = cl.sweep_scores(model, image, 2, metrics=(), progress=False)
    assert swept.labels[-1] == "own margin"
    assert (swept.maps[0, -1] == found.scores.numpy()).all() and swept.map(0, "own margin").score == "own margin"


def test_scores_compared_by_default_are_those_of_classes_that_exclude_each_other() -> None:
    assert [name for name, score in SCORES.items() if score.swept] == ["logit", "prob", "logprob"]
