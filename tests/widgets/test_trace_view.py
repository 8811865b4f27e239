"""`cl.widgets.trace` without a browser: what it shows is what the calls give."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from caap_lab.widgets.trace_view import TraceView, trace
from caap_lab.widgets.traced_image import OTHER, Cell
from helpers.models import build, random_images
from helpers.widgets import finished


@pytest.fixture(scope="module")
def pair() -> tuple[cl.HookedViT, torch.Tensor, torch.Tensor]:
    model = build("dinov2_registers")
    return model, *random_images(model, 2).split(1)


@pytest.fixture
def view(pair: Any) -> Iterator[TraceView]:
    model, clean, other = pair
    made = trace(model, clean, other)
    finished(made)
    yield made
    made.close()


def names(pair: Any) -> dict[str, Any]:
    return {"cl": cl, "model": pair[0], "image": pair[1], "other": pair[2]}


def said(view: TraceView, pair: Any, traces: bool = True) -> list[Any]:
    """What the calls shown give, but for those that only name something."""
    known = names(pair) | {"quiet": partial(cl.trace, progress=False)}
    found = []
    for line in view.link.split("\n"):
        if "cl.trace(" in line and not traces:
            continue
        code = line.replace("cl.trace(", "quiet(")
        if " = " in code.split("(")[0] or code.startswith("import "):
            exec(code, known)
        else:
            found.append(eval(code, known))
    return found


def test_traces_are_those_of_the_calls(view: TraceView, pair: Any) -> None:
    model = pair[0]
    view.board.painted = [1, 2, 5, 6]
    for change in ({}, {"how": "blur", "direction": "noise", "point": "mlp_out"}):
        for name, value in change.items():
            getattr(view, name).value = value
        finished(view)
        tokens, heads = said(view, pair)
        traced = view.traced
        for layer in range(model.n_layers):
            values = tokens.data["effect"].sel(layer=layer).values
            assert abs(traced[layer].per_image[:, 0] - values).max() < 1e-4
        assert abs(traced["heads"].per_image - heads.per_image).max() < 1e-4
        shown = np.frombuffer(view.board.tile("effects")["scores"], "<f4")
        assert shown == pytest.approx(tokens.data["effect"].sel(layer=0).values.reshape(-1)[5:], abs=1e-4)
        frame = view.to_dataframe()
        assert len(frame) == 4 * (5 + 16 + 3) and frame["effect"].notna().all()
        assert (
            len(view.grids.layers.tiles) == 4 * 16
            and len(view.grids.prefix.tiles) == 4 * 5
            and len(view.grids.heads.tiles) == 4 * 3
        )
        effect = traced["heads"].data["effect"].sel(layer=2, head=1).item()
        assert view.grids.heads.tips[2 * 3 + 1] == f"layer 2, head 1: effect {effect:.3f}" and view.message == ""
    clean, corrupted = (view.board.tile(key)["caption"] for key in ("clean", "corrupted"))
    assert "4 patches corrupted" in clean and "corrupted: blur" in corrupted
    gap = (heads.data["clean"] - heads.data["corrupted"]).item()
    assert view.board.tile("corrupted")["details"].endswith(f"an effect of 1 is {gap:.3g} of the score")


def test_a_click_on_a_cell_gives_the_classes_of_its_run(view: TraceView, pair: Any) -> None:
    model = pair[0]
    view.how.value, view.direction.value, view.point.value = OTHER, "denoise", "resid_pre"
    for click, cell in (
        (lambda: view.board.set_trait("chosen", [1, 2]), Cell("token", 0, 5 + 6)),
        (lambda: view.grids.prefix.set_trait("chosen", [3, 0]), Cell("token", 3, 0)),
        (lambda: view.grids.heads.set_trait("chosen", [2, 1]), Cell("head", 2, 1)),
    ):
        click()
        finished(view)
        assert view.cell == cell and view.layer == cell.layer
        logits = said(view, pair, traces=False)[0][0].detach()
        name = model.class_names.name(int(logits.argmax()))
        assert f"{float(logits.max()):.3f}" in view._details.value and name in view._details.value
    assert (view.board.chosen, view.grids.prefix.chosen) == ([], [-1, -1])
    view.grids.layers.chosen = [1, 0]
    finished(view)
    assert (
        view.cell == Cell("head", 1, 1)
        and view.grids.heads.chosen == [1, 1]
        and "Layer 1, head 1" in view._details.value
    )
    view.point.value = "mlp_out"
    view.board.chosen = [0, 0]
    view.grids.layers.chosen = [3, 0]  # behind the last attention the head reads the class token alone
    finished(view)
    assert "cannot change the logits" in view.message and view.worker.pending == 0
    view.point.value = "resid_pre"
    finished(view)
    assert view.message == ""


def test_classes_and_refusals(view: TraceView, pair: Any) -> None:
    model, clean, other = pair
    view.target_box.value = "3"
    finished(view)
    assert view.traced["heads"].data.attrs["target"] == model.class_names.name(3)
    view.target_box.value = ""
    finished(view)
    view.grids.layers.chosen = [2, 0]
    view.board.opacity, view.board.smooth, view.board.top = 0.25, True, 3
    axes = view.to_figure().axes
    drawn = axes[2].images[1]
    assert drawn.get_alpha() == 0.25 and drawn.get_interpolation() == "bilinear"
    assert len(axes[2].patches) == 3 + len(view.board.chosen) // 2  # the highest patches, and the chosen one
    assert axes[0].get_title() == "clean" and "resid_pre, layer 2, denoise" in axes[2].get_title()
    assert axes[3].get_ylabel() == "layer"
    with pytest.raises(InputError, match="one clean and at most one corrupted"):
        trace(model, clean, torch.cat([other, other]))
    same = trace(model, clean, clean)
    finished(same)
    assert "cannot be normalised" in same.message and same.worker.pending == 0
    same.close()


def test_swapping_the_images(view: TraceView, pair: Any) -> None:
    model, clean, other = pair
    view.board.painted, view.how.value, view.direction.value = [], OTHER, "denoise"
    finished(view)
    one = view.traced["heads"]
    view.swap.click()
    finished(view)
    known = names(pair)
    exec(view.link.split("\n")[0], known)
    assert torch.equal(known["changed"], clean[0])
    found = cl.trace(model, other, clean, points="z", by="head", progress=False)
    assert abs(view.traced["heads"].per_image - found.per_image).max() < 1e-4
    view.swap.click()
    assert view.traced["heads"] is one
    view.board.box = [0, 0, 1, 1]
    assert view.options.painted == (0, 1, 4, 5) and view.board.box == []


def test_a_small_difference_is_said(pair: Any) -> None:
    model, clean, _ = pair
    near = trace(model, clean, clean + 1e-3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)))
    finished(near)
    assert near.message == "" and "small changes look large" in near._notice.value
    near.close()
