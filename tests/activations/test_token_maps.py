"""Sweeps over tokens draw themselves as maps over the image; sweeps over more than two axes show one of the others."""

from typing import Any

import pytest
from matplotlib.figure import Figure

import caap_lab as cl
from caap_lab.plots import trace_maps
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def model() -> Any:
    return build("vit")


def swept(model: Any, count: int, tokens: list[int], **more: Any) -> cl.SweepResult:
    options = {"over": {"layer": range(2), "token": tokens}, "metric": 1, "progress": False, **more}
    return cl.sweep(
        model,
        random_images(model, count),
        lambda layer, token, **_: cl.Patch("resid_pre", layer, tokens=[token]),
        **options,
    )


def test_layers_and_tokens_are_maps_over_the_image(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, plot = [], trace_maps.plot_trace_maps
    monkeypatch.setattr(trace_maps, "plot_trace_maps", lambda *a, **k: drawn.append((*a, k)) or plot(*a, **k))
    found = swept(model, 1, list(range(17)))
    assert found._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")
    maps, prefix, pixels, _, options = drawn[0]
    assert maps.shape == (2, 4, 4) and (maps.reshape(2, 16) == found.mean[:, 1:]).all()
    assert (prefix[:, 0] == found.mean[:, 0]).all() and pixels.shape == (*model.image_size, 3)
    assert options["names"] == ["layer 0", "layer 1"] and options["prefix_names"] == ["cls"]
    low, high = options["limits"]
    assert low == -high and found.quantity == options["label"]
    found.plot(layer=1)
    assert drawn[1][0].shape == (1, 4, 4) and drawn[1][4]["names"] == ["layer 1"]
    swept(model, 2, [0, 3]).plot()
    assert drawn[2][2] is None and len(drawn) == 3  # several images have no ground in common
    found.plot(token=3)
    assert len(drawn) == 3  # a line over layers


def test_one_of_several_targets_is_shown(model: Any) -> None:
    found = swept(model, 1, list(range(17)), metric={"first": 1, "second": 2})
    assert "image/png" in found._repr_mimebundle_()
    figure = found.plot(target="second").figure
    assert isinstance(figure, Figure) and "target second" in figure.axes[0].get_title().replace("\n", " ")


def test_names_that_are_no_tokens_stay_a_heat_map(model: Any) -> None:
    given = {"layer": range(2), "token": ["class", "patches"]}
    choices = {"class": cl.tokens.cls(), "patches": cl.tokens.patches()}
    found = cl.sweep(
        model,
        random_images(model, 1),
        lambda layer, token: cl.Patch("resid_pre", layer, tokens=choices[token]),
        over=given,
        metric=1,
        progress=False,
    )
    assert [text.get_text() for text in found.plot().get_xticklabels()] == ["class", "patches"]
