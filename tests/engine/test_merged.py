"""Attention with the blank's part from the fused kernel, against one softmax over all keys."""

import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab.engine import merged as merged_module
from caap_lab.engine.attend import attend
from caap_lab.engine.blanks import blank_run
from caap_lab.engine.layout import Layout, Rows, layout, layout_of_sets
from caap_lab.models.neighbourhoods import find_neighbourhood


@pytest.fixture
def model() -> cl.HookedViT:
    demo = cl.load_model("demo").to(torch.float64)
    assert isinstance(demo, cl.HookedViT)
    return demo


def neighbourhoods(model: cl.HookedViT, first: int, last: int) -> Layout:
    return layout(model.spec, find_neighbourhood("box1"), "exact", first, last, model.device)


def check(
    monkeypatch: pytest.MonkeyPatch, model: cl.HookedViT, groups: Layout, rows: Rows, places: Tensor, scale: float = 1.0
) -> None:
    generator = torch.Generator(device="cpu").manual_seed(0)
    n_places = max(int(places.max()) + 1, len(rows.tokens))
    shapes = ((2, 4, len(rows.tokens), 16), (2, 4, n_places, 16), (2, 4, n_places, 16))
    q, k, v = (torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu") for shape in shapes)
    with torch.no_grad():
        blank = blank_run(model, "white")
        monkeypatch.setattr(merged_module, "FEWEST_TOKENS", 0)
        merged = attend(q * scale, k, v, places, rows, groups, blank, 3, "exact")
        monkeypatch.setattr(merged_module, "FEWEST_TOKENS", 1000)
        plain = attend(q * scale, k, v, places, rows, groups, blank, 3, "exact")
    torch.testing.assert_close(merged, plain, rtol=1e-12, atol=1e-12)
    assert not torch.equal(merged, plain)  # the two ways were taken


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["usual", "sharp"])
@pytest.mark.parametrize("tail", [False, True], ids=["class token", "tail"])
@pytest.mark.parametrize("some", [(0, 64), (0, 1), (27, 28), (20, 44), (63, 64)])
def test_merged_attention_is_one_softmax(
    monkeypatch: pytest.MonkeyPatch, model: cl.HookedViT, some: tuple[int, int], tail: bool, scale: float
) -> None:
    """Also where a row reads almost only a token of the blank that its group replaces: nothing is subtracted."""
    groups = neighbourhoods(model, *some)
    rows, places = (groups.live, groups.own_tail) if tail else (groups.prefix, groups.own_source)
    check(monkeypatch, model, groups, rows, places, scale)


def test_a_group_may_have_only_its_prefix_or_all_patches(monkeypatch: pytest.MonkeyPatch, model: cl.HookedViT) -> None:
    groups = neighbourhoods(model, 0, 64)
    check(monkeypatch, model, groups, groups.prefix, groups.own_prefix)
    masks = torch.zeros(3, 64, dtype=torch.bool)
    masks[0], masks[1, 7], masks[2, 60:] = True, True, True
    sets = layout_of_sets(model.spec, masks, model.device)
    check(monkeypatch, model, sets, sets.live, sets.own_tail)
