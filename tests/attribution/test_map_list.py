"""Lists of maps, which show themselves as galleries."""

import operator
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import caap_lab as cl
from caap_lab import InputError, MapList
from caap_lab.attribution import map_list
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def maps() -> MapList:
    model = build("vit")
    return cl.caap(model, random_images(model, 3), [1, 2, 1], progress=False)  # type: ignore[return-value]


def test_several_images_give_a_list_of_maps(maps: MapList) -> None:
    assert isinstance(maps, list) and type(maps) is MapList and len(maps) == 3
    model = build("vit")
    assert type(cl.attribute(model, random_images(model, 2), "rollout", progress=False)) is MapList
    assert isinstance(maps[0], cl.AttributionMap) and maps == list(maps) and maps.index(maps[1]) == 1
    for part in (maps[1:], maps[::-1], maps.copy(), maps[:1] + maps[1:]):
        assert type(part) is MapList and set(map(id, part)) <= set(map(id, maps))
    assert operator.add(maps, ["else"]) == [*maps, "else"]  # as any list
    with pytest.raises(InputError, match="holds attribution maps, not str"):
        MapList(["a map"])  # type: ignore[list-item]


def test_it_prints_short_and_shows_a_gallery(maps: MapList, monkeypatch: pytest.MonkeyPatch) -> None:
    name = maps[0].model_name
    assert repr(maps) == f"MapList: 3 maps by caap of 3 images, of {name}, for 'class 1', 'class 2'"
    assert repr(MapList()) == "MapList: no maps" and "image/png" not in MapList()._repr_mimebundle_()
    bundle = maps._repr_mimebundle_()
    assert bundle["text/plain"] == repr(maps)
    assert Image.open(BytesIO(bundle["image/png"])).width > 400
    monkeypatch.setattr(map_list, "SHOWN", 1)
    assert maps._repr_mimebundle_()["text/plain"] == f"{maps!r}; the first 1 are shown"


def test_each_photo_stands_before_its_maps(maps: MapList) -> None:
    model = build("vit")
    rollout = cl.attribute(model, random_images(model, 3)[:1], "rollout", 1)
    mixed = MapList([maps[0], rollout, maps[0].ranks() - rollout.ranks(), maps[1]])
    figure = mixed.plot(smooth=True, opacity=0.5)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == [
        "image 0",
        "caap for 'class 1'",
        "rollout for any class",
        "caap - rollout for 'class 1'",
        "image 1",
        "caap for 'class 2'",
    ]
    assert [len(ax.images) for ax in shown] == [1, 3, 3, 3, 1, 3]  # a photo; or a grey photo, scores and their scale
    assert shown[1].images[1].get_alpha() == 0.5 and shown[1].images[1].get_interpolation() == "bilinear"
    assert [text.get_text() for text in shown[3].texts][1] == "difference in rank"
    low, unit, high = (text.get_text() for text in shown[1].texts)
    assert unit == "logit" and low.startswith("≤") and high.startswith("≥")  # the robust range cuts both ends
    full = [ax for ax in mixed.plot(robust=False).figure.axes if ax.images][1]
    assert full.texts[0].get_text() == f"{float(maps[0].scores.min()):.3g}"
    one = MapList(maps[:1]).plot()
    assert one.axes[0].get_title() == "image"
    with pytest.raises(InputError, match="no map to draw"):
        MapList().plot()
    with pytest.raises(InputError, match="no colour map 'no'"):
        maps.plot(colour_map="no")


def test_more_maps_than_a_line_holds(maps: MapList) -> None:
    figure = MapList([maps[0]] * 8).plot()
    assert len([ax for ax in figure.axes if ax.images]) == 9 and len(figure.axes) == 12


def test_maps_as_one_table(maps: MapList) -> None:
    frame = maps.to_dataframe()
    assert list(frame.columns) == ["model", "method", "image", "target", "row", "col", "score", "rank"]
    assert len(frame) == 3 * maps[0].scores.numel() and list(frame["image"].unique()) == [0, 1, 2]
    for place, part in frame.groupby("image"):
        scores = torch.tensor(np.array(part["score"])).reshape(maps[0].grid).float()
        assert torch.equal(scores, maps[place].scores) and set(part["target"]) == {maps[place].caption}
    assert MapList().to_dataframe().empty


def test_a_single_map_is_no_list(maps: MapList) -> None:
    with pytest.raises(InputError, match=r"cl.MapList\(\[m\]\)"):
        MapList(maps[0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"cl.gallery\(\[maps\]\)"):
        cl.gallery(maps)  # type: ignore[arg-type]
