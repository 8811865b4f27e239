"""Attention with the blank's part from the fused kernel, against one softmax over all keys."""

import pytest
import torch

import caap_lab as cl
from caap_lab.engine import merged as merged_module
from caap_lab.engine.attend import attend
from caap_lab.engine.blanks import blank_run
from caap_lab.engine.layout import layout
from caap_lab.models.neighbourhoods import find_neighbourhood


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["usual", "sharp"])
@pytest.mark.parametrize("tail", [False, True], ids=["class token", "tail"])
def test_merged_attention_is_one_softmax(monkeypatch: pytest.MonkeyPatch, tail: bool, scale: float) -> None:
    """Also where a row reads almost only a token of the blank that its group replaces: nothing is subtracted."""
    model = cl.load_model("demo").to(torch.float64)
    groups = layout(model.spec, find_neighbourhood("box1"), "exact", 0, model.spec.n_patches, model.device)
    rows, places = (groups.live, groups.own_tail) if tail else (groups.prefix, groups.own_source)
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
