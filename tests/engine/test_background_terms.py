"""E-CAAP's background terms: kept with the blank under the groups' name, and computed again by nobody."""

import gc
import weakref

import pytest
import torch

import caap_lab as cl
from caap_lab.engine import attend, patched_runs
from caap_lab.engine.blanks import blank_run
from helpers.models import build, random_images


def test_groups_that_are_made_anew_find_the_terms_and_the_blank_keeps_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    image = random_images(model, 1)
    before = cl.caap(model, image, 0, attention="cached").all_scores
    groups = patched_runs.layout(
        model.spec,
        next(iter(blank_run(model, "white").row_terms))[1][0],
        "exact",
        0,
        model.spec.n_patches,
        model.device,
    )
    rows = [weakref.ref(groups.prefix), weakref.ref(groups.live)]
    del groups
    patched_runs.layout.cache_clear()
    gc.collect()
    assert [row() for row in rows] == [None, None]
    assert blank_run(model, "white").row_terms
    computed: list[int] = []
    monkeypatch.setattr(attend, "_compute_terms", lambda *arguments: computed.append(1))
    again = cl.caap(model, image, 0, attention="cached").all_scores
    assert torch.equal(again, before) and not computed


def test_terms_are_those_of_the_groups_that_were_asked_for() -> None:
    model = build("vit")
    image = random_images(model, 1)
    kinds = [("box1", "exact"), ("cross1", "exact"), ("box1", "shared"), ("box1", "interpolated")]
    alone = []
    for kind, tail in kinds:
        model.kept_runs.clear()
        alone.append(cl.caap(model, image, 0, neighbourhood=kind, tail=tail, attention="cached").all_scores)
    for (kind, tail), expected in zip(kinds, alone, strict=True):  # with the last one's terms kept
        found = cl.caap(model, image, 0, neighbourhood=kind, tail=tail, attention="cached").all_scores
        assert torch.equal(found, expected)
