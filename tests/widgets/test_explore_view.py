"""`cl.widgets.explore` without a browser: what it shows is what the calls give."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.widgets import explore_results
from caap_lab.widgets.background import Worker
from caap_lab.widgets.explore_view import Explorer, explore
from helpers.widgets import finished, until


@pytest.fixture(scope="module")
def explorer(model: cl.HookedViT, scenes: list[Any]) -> Iterator[Explorer]:
    made = explore(model, scenes, methods=["caap", "rollout"])
    finished(made)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def as_at_first(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "explorer" in request.fixturenames:
        made: Explorer = request.getfixturevalue("explorer")
        made.difference.first.value = made.difference.second.value = ""
        made.board.pinned, made.board.chosen, made.board.box = [], [], []
        made.compare.kind.value, made.method_picker.value = "nothing", ("caap", "rollout")
        if made.compare.target_box is not None:
            made.compare.target_box.value = ""
        made.target_box.value, made.image_picker.chosen = "", 0
        for name in ("top", "lock", "signs", "opacity", "robust", "smooth", "colours"):
            setattr(made.board, name, made.board.trait_defaults(name))
        finished(made)


def captions(explorer: Explorer) -> list[str]:
    return [tile["caption"] for tile in explorer.board.tiles]


def results_of(link: str, scenes: list[Any], model: cl.HookedViT) -> list[Any]:
    """What the expressions of a link give, in a session where only these names are known."""
    names = {"cl": cl, "model": model, "images": scenes}
    return [eval(line, names) for line in link.split("\n")]


def test_maps_are_those_of_the_calls_in_the_link(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.method_picker.value = ("caap", "rollout", "libra_ixg_plus")
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    maps = results_of(explorer.link, scenes, model)
    assert [m.method for m in maps] == list(explorer.maps) == ["caap", "rollout", "libra_ixg_plus"]
    for m, shown in zip(maps, explorer.maps.values(), strict=True):
        assert torch.equal(m.scores, shown.scores)
        assert m.target == shown.target or not METHODS[m.method].class_specific
        sent = np.frombuffer(explorer.board.tile(m.method)["scores"], dtype="<f4").reshape(m.grid)
        assert np.array_equal(sent, m.scores.numpy())


def test_another_class_needs_no_second_pass_of_caap(explorer: Explorer, scenes: list[Any]) -> None:
    before = dict(explorer._results._maps)
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    assert explorer.maps["caap"].target == scenes[0].labels[0]
    assert dict(explorer._results._maps) == before


def test_maps_for_any_class_say_so(explorer: Explorer, model: cl.HookedViT) -> None:
    assert captions(explorer)[2] == "rollout for any class"
    agnostic = [n for n, m in METHODS.items() if not m.class_specific and m.runs_on(model)]
    explorer.method_picker.value = agnostic
    explorer.target_box.value = "7"
    finished(explorer)
    assert captions(explorer)[1:] == [f"{name} for any class" for name in agnostic]
    assert {tile["unit"] for tile in explorer.board.tiles[1:]} == {"attribution to logit of any class"}
    assert all("7" not in ax.get_title() for ax in explorer.to_figure().axes[1:])
    assert set(explorer.to_dataframe()["target"]) == {"any class"}


def test_patch_says_classes_in_every_tile(explorer: Explorer) -> None:
    m = explorer.maps["caap"]
    row, col = m.rank()[2]
    best = m.all_scores[row, col].softmax(dim=0).topk(2)
    said = f"only this patch inserted: {best.indices[0]} {best.values[0]:.0%}, {best.indices[1]} {best.values[1]:.0%}"
    assert {tile["tips"][row * 8 + col] for tile in explorer.board.tiles} == {said}
    assert "Click a patch, or drag a box" in explorer._details.value
    explorer.board.chosen = [row, col]
    assert f"{m.all_scores[row, col].max():.3f}" in explorer._details.value
    assert f"--caap-part: {best.values[0]:.1%}" in explorer._details.value
    assert "whole image" in explorer._details.value and "blank" in explorer._details.value


def test_box_is_a_patched_run(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.board.box = [0, 0, 7, 7]
    finished(explorer)
    # With all patches inserted into the first five blocks, and the class token the blank's until then.
    source = model.record(scenes[0].image, names=["resid_pre"], layers=range(5))
    patch = cl.Patch("resid_pre", layers=range(5), tokens=cl.tokens.patches(), source=source)
    expected = model.run_patched(cl.blanks.blank_image(model, "white"), [patch])[0]
    assert torch.equal(explorer._results.boxes[0, (0, 0, 7, 7)], expected.detach())
    assert f"{expected.max():.3f}" in explorer._details.value
    names: dict[str, Any] = {"cl": cl, "model": model, "images": scenes}
    exec(explorer.link.replace("model.run_patched(", "logits = model.run_patched("), names)
    assert torch.equal(names["logits"][0], expected)


def test_wrong_class_is_said_beside_the_field(explorer: Explorer) -> None:
    explorer.target_box.value = "3"
    explorer.target_box.value = "zebra"
    assert explorer.target_box.problem.startswith("There is no class 'zebra'")
    assert explorer.target == 3 and captions(explorer)[1] == "caap for '3'"
    explorer.target_box.value = ""
    assert explorer.target_box.problem == explorer.message == ""


def test_error_of_a_method_is_said_in_the_widget(model: cl.HookedViT, scenes: list[Any], monkeypatch: Any) -> None:
    def broken(model: Any, images: Any, targets: Any) -> Any:
        raise ArithmeticError("no sum <b>today</b>")

    monkeypatch.setitem(METHODS, "broken", None)
    cl.register("broken", broken)
    made = explore(model, scenes, methods=["caap", "broken"])
    finished(made)
    until(lambda: bool(made.message))
    assert "ArithmeticError: no sum &lt;b&gt;today" in made._message.value
    assert list(made.maps) == ["caap"]  # what can be shown is shown
    tile = made.board.tile("broken")
    assert (tile["kind"], tile["caption"]) == ("photo", "broken: no map") and "no sum" in tile["details"]
    said = []
    monkeypatch.setattr(made, "_show_error", said.append)
    made.board.box = [0, 0, 1, 1]  # a click does not try it again
    finished(made)
    assert not said
    made.method_picker.value = ("broken",)  # choosing it does
    finished(made)
    assert len(said) == 1
    made.close()


def test_another_photo_begins_anew(explorer: Explorer) -> None:
    explorer.target_box.value, explorer.board.chosen, explorer.board.box = "3", [2, 2], [1, 1, 2, 2]
    finished(explorer)
    maps = dict(explorer._results._maps)
    explorer.image_picker.chosen = 1
    finished(explorer)
    assert explorer.board.chosen == [] and explorer.board.box == [] and explorer.target_box.value == ""
    assert explorer.target == explorer._results.predicted(1)
    assert "run_patched" not in explorer.link and "images[1].image" in explorer.link
    assert maps.items() <= explorer._results._maps.items()


def test_a_target_of_the_call_stays_with_another_photo(model: cl.HookedViT, scenes: list[Any]) -> None:
    made = explore(model, scenes, 3, "rollout")
    made.target_box.value = "5"
    made.image_picker.chosen = 1
    finished(made)
    assert made.target == 3 and made.target_box.value == "3: 3"
    made.close()


def test_two_classes_side_by_side(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    likeliest = model(model.preprocess(scenes[0].image))[0].topk(2).indices.tolist()
    explorer.compare.kind.value = "class"
    finished(explorer)
    first, other = (f"'{index}'" for index in likeliest)
    assert captions(explorer)[1:3] == [f"caap for {first}", "rollout for any class"]
    assert captions(explorer)[4:] == [f"caap for {other}", "rollout for any class"]
    assert [tile["new_row"] for tile in explorer.board.tiles] == [True, False, False] * 2
    explorer.compare.target_box.value = "7"
    explorer.board.chosen = [2, 2]
    finished(explorer)
    maps = results_of(explorer.link, scenes, model)
    assert torch.equal(maps[-1].scores, explorer.shown_maps["other caap"].scores) and maps[-1].target == 7
    assert "<i>7: 7</i>" in explorer._details.value
    assert explorer.shown_maps["other caap"].scores.shape == (8, 8)
    assert len(explorer.to_figure().axes) == 6 + 4  # two rows, and the maps' bars


def test_two_photos_side_by_side(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.compare.kind.value = "photo"
    explorer.compare.photo.value = 2
    explorer.board.chosen, explorer.board.box = [2, 2], [0, 0, 1, 1]
    finished(explorer)
    assert set(explorer.board.photos) == {"0", "2"}
    assert {shown["photo"] for shown in explorer.board.tiles[3:]} == {"2"}
    for name, index in (("caap", 0), ("other caap", 2)):
        assert torch.equal(explorer.shown_maps[name].scores, cl.caap(model, scenes[index].image).scores)
    assert explorer._details.value.count("<table") == 4 and "image 2: Box" in explorer._details.value
    frame = explorer.to_dataframe()
    assert list(frame.groupby(["image", "method"], sort=False).size()) == [64] * 4
    assert list(frame.columns[:4]) == ["model", "method", "image", "target"]
    explorer.image_picker.chosen = 2  # not beside itself
    finished(explorer)
    assert explorer.compare.photo.value == 0


def test_a_pinned_map_stays(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    was = explorer.maps["caap"]
    explorer.board.pinned = ["caap"]
    assert len(explorer.board.tiles) == 3  # it is shown already
    explorer.target_box.value = "3"
    finished(explorer)
    assert captions(explorer)[1:] == ["caap for '3'", "rollout for any class", f"caap for '{was.target}', image 0"]
    (pin,) = explorer.board.pinned
    explorer.image_picker.chosen = 1
    explorer.method_picker.value = ("rollout",)
    finished(explorer)
    tile = explorer.board.tiles[-1]
    assert tile["key"] == pin and tile["photo"] == "0" and "0" in explorer.board.photos
    assert torch.equal(explorer.shown_maps[pin].scores, was.scores)
    again = results_of(explorer.link, scenes, model)[-1]
    assert torch.equal(again.scores, was.scores) and again.target == was.target
    explorer.board.pinned = []
    assert [tile["key"] for tile in explorer.board.tiles] == ["photo", "rollout"]


def test_a_map_unpinned_before_it_moves_is_gone(explorer: Explorer) -> None:
    explorer.board.pinned = ["rollout", "caap"]
    explorer.board.pinned = ["caap"]
    explorer.image_picker.chosen = 1
    finished(explorer)
    assert [tile["caption"][:4] for tile in explorer.board.tiles[3:]] == ["caap"]


def test_difference_of_two_maps(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.compare.kind.value = "class"
    finished(explorer)
    explorer.difference.first.value, explorer.difference.second.value = "caap", "other caap"
    shown = explorer.shown_maps
    assert torch.equal(shown["difference"].scores, shown["caap"].scores - shown["other caap"].scores)
    assert captions(explorer)[-1] == "{} minus {}".format(*(captions(explorer)[place] for place in (1, 4)))
    assert explorer.board.tiles[-1]["signed"]
    assert torch.equal(results_of(explorer.link, scenes, model)[-1].scores, shown["difference"].scores)
    explorer.difference.second.value = "rollout"  # of another unit
    assert captions(explorer)[-1].endswith(", by ranks")
    expected = shown["caap"].ranks() - shown["rollout"].ranks()
    assert torch.equal(explorer.shown_maps["difference"].scores, expected.scores)
    assert torch.equal(results_of(explorer.link, scenes, model)[-1].scores, expected.scores)
    assert not explorer.message
    explorer.target_box.value = "7"
    finished(explorer)
    assert captions(explorer)[-1].startswith("caap for '7' minus")
    explorer.method_picker.value = ("caap",)  # one of the two is gone
    assert explorer.board.tiles[-1]["key"] != "difference"


def test_no_difference_of_two_photos(explorer: Explorer) -> None:
    explorer.compare.kind.value = "photo"
    finished(explorer)
    explorer.difference.first.value, explorer.difference.second.value = "caap", "other caap"
    assert explorer.message.startswith("These are maps of different images")
    assert captions(explorer)[-1] == "no difference" and "difference" not in explorer.shown_maps


def test_figure_has_the_look_of_the_browser(explorer: Explorer) -> None:
    explorer.board.chosen = [2, 3]
    board, m = explorer.board, explorer.maps["caap"]
    board.opacity, board.robust, board.smooth, board.colours, board.top = 0.25, False, True, "magma", 4
    axes = explorer.to_figure().axes
    assert [ax.get_title() for ax in axes[:3]] == [
        *captions(explorer)[:1],
        f"caap for '{m.target}'",
        captions(explorer)[2],
    ]
    drawn = axes[1].images[1]
    assert drawn.get_alpha() == 0.25 and drawn.get_interpolation() == "bilinear" and drawn.cmap.name == "magma"
    assert (drawn.norm.vmin, drawn.norm.vmax) == pytest.approx((m.scores.min().item(), m.scores.max().item()))
    assert len(axes[1].patches) == 4 + 1
    explorer.compare.kind.value, board.lock = "class", True
    finished(explorer)
    figure = explorer.to_figure()
    ends = [ax.images[1].norm for ax in figure.axes if ax.get_title().startswith("caap")]
    assert (ends[0].vmin, ends[0].vmax) == (ends[1].vmin, ends[1].vmax)
    assert (ends[0].vmin, ends[0].vmax) == explorer.board.tile("caap")["locked"]["full"]
    figure.savefig(BytesIO(), format="png")


def test_the_look_needs_nothing_new(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser has all it needs: only the picture in the saved notebook is drawn again."""
    tiles = explorer.board.tiles
    monkeypatch.setattr(explorer, "_draw", lambda: pytest.fail("tiles were made again"))
    saved: list[float] = []
    monkeypatch.setattr(explorer, "_leave_picture", lambda: saved.append(explorer.board.opacity))
    monkeypatch.setattr(explorer, "_picture", object())  # as if it was displayed
    explorer.board.opacity = 0.25
    assert explorer.board.tiles is tiles and saved == [0.25] and explorer.message == ""


def test_uploads_that_are_no_images_get_a_sentence(explorer: Explorer, tmp_path: Path) -> None:
    count, picker = len(explorer.photos), explorer.image_picker
    for name, content in (("a.pdf", b"%PDF-1.7"), ("b.png", b"\x89PNG\r\n\x1a\n broken"), ("c.jpg", b" ")):
        picker.problem = ""
        picker.set_trait("file", (name, content))
        assert picker.problem == f"{name} is not an image in a format that Pillow can read, or it is damaged."
    path = tmp_path / "thin.png"
    Image.new("RGB", (400, 2)).save(path)
    picker.problem = ""
    picker.set_trait("file", ("thin.png", path.read_bytes()))
    assert picker.problem.startswith("thin.png is 400 x 2 pixels, thinner than")
    assert len(explorer.photos) == count
    picker.problem = ""


def test_the_link_of_an_uploaded_photo_works(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    for place in (1, 2):  # two photos of one name
        content = BytesIO()
        scenes[place].image.save(content, format="png")
        explorer.image_picker.set_trait("file", ("mine.png", content.getvalue()))
        finished(explorer)
        assert explorer.maps["caap"].image.equal(torch.from_numpy(np.array(scenes[place].image)))
        assert explorer.image_picker.problem == ""
        for line, m in zip(explorer.link.split("\n"), explorer.maps.values(), strict=True):
            assert torch.equal(eval(line, {"cl": cl, "model": model}).scores, m.scores)
    assert [photo.name for photo in explorer.photos[-2:]] == ["mine.png", "mine (2).png"]
    assert explorer.compare.photo.options[-1] == ("mine (2).png", len(explorer.photos) - 1)


def test_how_long_a_map_takes_is_said(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = explore(model, scenes, methods=["rollout"])
    finished(made)
    times = made._runs.times
    assert times.seconds_per_pass is not None and times.passes("rise") > 1000
    times.seconds_per_pass = 0.03
    waiting: list[Any] = []
    monkeypatch.setattr(Worker, "replace_jobs", lambda self, jobs: waiting.extend(job.key for job in jobs))
    made.method_picker.value = ("rollout", "rise", "attn_lrp")
    assert waiting == [("map", 0, "attn_lrp", None), ("map", 0, "rise", None)]  # what is quick does not wait
    passes = times.passes("rise")
    assert captions(made)[2] == f"rise, about {passes * 0.03 / 60:.0f} min"
    assert made.board.tile("rise")["details"] == f"as much as {passes:,.0f} forward passes of 30 ms"
    made.close()


def test_old_maps_make_room(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore_results, "KEPT", 3)
    explorer.method_picker.value = ("libra_ixg_plus",)
    for index in ("1", "2", "3"):
        explorer.target_box.value = index
        finished(explorer)
    assert len(explorer._results._maps) == 3
    assert list(explorer.maps) == ["libra_ixg_plus"]
