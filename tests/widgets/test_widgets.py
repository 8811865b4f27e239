"""The widgets' values and their work in the background, without a browser; tests/browser has the rest."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image
from timm.models.mlp_mixer import MlpMixer

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.errors import InputError
from caap_lab.widgets.background import Cancelled, Job, Stoppable, Worker, twin
from caap_lab.widgets.explore_view import Explorer, explore
from caap_lab.widgets.layer_sweep_view import LayerSweep, layer_sweep
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.pixels import map_colours


@pytest.fixture(scope="module")
def model() -> cl.HookedViT:
    return cl.load_model("demo")


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    return cl.demo_images("two", 3, seed=1)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(errors.append)
    errors.clear()
    yield made
    made.close()


errors: list[Exception] = []


def finished(widget: Any) -> None:
    widget.wait()
    assert widget.worker.left == 0


SECONDS = 180
"""Only a test that fails waits so long."""


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


# -- work in the background ----------------------------------------------------------------------------------------


def test_jobs_run_in_order_and_errors_do_not_end_the_thread(worker: Worker) -> None:
    found: list[Any] = []
    worker.ask([Job(0, lambda: 1 / 0, found.append), *(Job(i, lambda i=i: i, found.append) for i in (3, 1, 2))])
    worker.wait()
    until(lambda: len(found) == 3)
    assert found == [3, 1, 2]
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_new_wishes_drop_old_ones_and_stop_the_running_one(worker: Worker) -> None:
    started, found = threading.Event(), []

    def endless() -> None:
        while True:
            started.set()
            worker.check()
            time.sleep(0.001)

    worker.ask([Job("endless", endless, found.append), Job("waiting", lambda: "waiting", found.append)])
    assert started.wait(SECONDS)
    worker.ask([Job("new", lambda: "new", found.append)])
    worker.wait(SECONDS)
    until(lambda: bool(found))
    assert found == ["new"]
    assert not errors


def test_a_job_that_runs_already_is_not_started_again(worker: Worker) -> None:
    started, go, runs, found = threading.Event(), threading.Event(), [], []

    def slow() -> str:
        runs.append(1)
        started.set()
        assert go.wait(SECONDS)
        worker.check()
        return "slow"

    worker.ask([Job("slow", slow, found.append)])
    assert started.wait(SECONDS)
    worker.ask([Job("first", lambda: "first", found.append), Job("slow", slow, found.append)])
    go.set()
    until(lambda: len(found) == 2)
    assert (found, len(runs)) == (["slow", "first"], 1)


def test_twin_has_the_same_weights_and_stops_when_told(model: cl.HookedViT, scenes: list[Any]) -> None:
    stop = False

    def check() -> None:
        if stop:
            raise Cancelled

    copy = twin(model)
    for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        assert ours is theirs
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda resid, hook: resid * 0)]):
        found = cl.caap(copy, scenes[0].image)  # caap refuses a model with hooks
    assert torch.equal(found.scores, cl.caap(model, scenes[0].image).scores)
    assert copy.fingerprint == model.fingerprint  # its maps are the model's
    stop = True
    with pytest.raises(Cancelled), Stoppable(check):
        cl.caap(copy, scenes[0].image)
    stop = False
    assert torch.equal(cl.caap(copy, scenes[0].image).scores, found.scores)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"rise", "mda", "caap"}))
def test_methods_give_the_same_on_the_twin(model: cl.HookedViT, scenes: list[Any], name: str) -> None:
    copy = twin(model)
    ours = cl.attribute(model, scenes[0].image, name).scores
    with Stoppable(lambda: None):
        theirs = cl.attribute(copy, scenes[0].image, name).scores
    assert torch.equal(ours, theirs)


# -- closing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["explore", "layer_sweep", "attention", "benchmark"])
def test_close_leaves_nothing_behind(
    name: str, model: cl.HookedViT, scenes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ipywidgets keeps every row, layout and style until it is closed itself."""
    monkeypatch.setattr(Worker, "ask", lambda self, jobs: None)
    given: dict[str, Any] = {
        "explore": (model, scenes),
        "layer_sweep": (model, scenes[0]),
        "attention": (model, scenes[0]),
    }
    before = set(_instances)
    for _ in range(3):  # one after the other, and none takes what the next needs
        made = getattr(cl.widgets, name)(*given.get(name, (tmp_path / "none",)))
        assert len(_instances) > len(before) + 20
        if name == "explore":
            made.method_list.value = ("rollout", "caap")
            made.method_list.value = ("rollout",)
        made.close()
        assert set(_instances) == before
        made.close()  # once more does nothing


def test_closing_one_leaves_the_other(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "ask", lambda self, jobs: None)
    for make in (cl.widgets.explore, cl.widgets.layer_sweep, cl.widgets.attention):
        before = set(_instances)
        one = make(model, scenes[0])
        first = set(_instances) - before
        other = make(model, scenes[0])
        other.close()
        assert set(_instances) - before == first
        one.close()


def test_what_is_refused_leaves_nothing_open(model: cl.HookedViT, scenes: list[Any]) -> None:
    before = set(_instances)
    for make in (explore, layer_sweep):
        with pytest.raises(InputError, match="There is no class"):
            make(model, scenes[:1], target="zebra")
    assert set(_instances) == before


def test_nothing_happens_after_closing(model: cl.HookedViT, scenes: list[Any]) -> None:
    called: list[str] = []

    async def close_before() -> None:
        made = layer_sweep(model, scenes[0].image)
        made._later(0.01, lambda: called.append("too late"))
        made.close()
        await asyncio.sleep(0.05)

    asyncio.run(close_before())
    assert not called


# -- explore -------------------------------------------------------------------------------------------------------


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
        made.photo.chosen, made.photo.box = [], []
        made.target_box.value, made.method_list.value, made.gallery.chosen = "", ("caap", "rollout"), 0
        finished(made)


def test_maps_are_those_of_the_calls_in_the_link(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.method_list.value = ("caap", "rollout", "libra_ixg_plus")
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    names = {"cl": cl, "model": model, "images": scenes}
    maps = [eval(line, names) for line in explorer.link.split("\n")]
    assert [m.method for m in maps] == list(explorer.maps) == ["caap", "rollout", "libra_ixg_plus"]
    for m, shown in zip(maps, explorer.maps.values(), strict=True):
        assert torch.equal(m.scores, shown.scores)
        assert m.target == shown.target or not METHODS[m.method].class_specific


def test_another_class_needs_no_second_pass_of_caap(explorer: Explorer, scenes: list[Any]) -> None:
    before = dict(explorer._maps)
    explorer.target_box.value = str(scenes[0].labels[0])
    finished(explorer)
    assert explorer.maps["caap"].target == scenes[0].labels[0]
    assert dict(explorer._maps) == before


def test_patch_says_score_rank_and_classes(explorer: Explorer) -> None:
    m = explorer.maps["caap"]
    row, col = m.rank()[2]
    tip = explorer.overlays["caap"].tips[row * 8 + col]
    assert f"row {row}, column {col}: logit {m.scores[row, col].item():.4g}, rank 3 of 64" in tip
    best = m.all_scores[row, col].softmax(dim=0).topk(2)
    assert f"inserted alone: {best.indices[0]} {best.values[0]:.0%}, {best.indices[1]} {best.values[1]:.0%}" in tip
    explorer.photo.chosen = [row, col]
    assert explorer.overlays["rollout"].chosen == [row, col]
    assert f"{m.all_scores[row, col].max():.3f}" in explorer._details.value


def test_box_is_a_patched_run(explorer: Explorer, model: cl.HookedViT, scenes: list[Any]) -> None:
    explorer.overlays["caap"].box = [0, 0, 7, 7]
    finished(explorer)
    # With all patches inserted into the first five blocks, and the class token the blank's until then.
    source = model.record(scenes[0].image, names=["resid_pre"], layers=range(5))
    patch = cl.Patch("resid_pre", layers=range(5), tokens=cl.tokens.patches(), source=source)
    expected = model.run_patched(cl.blanks.blank_image(model, "white"), [patch])[0]
    assert torch.equal(explorer._box_logits[(0, 0, 0, 7, 7)], expected.detach())
    assert f"{expected.max():.3f}" in explorer._details.value


def test_wrong_class_is_said_in_the_widget(explorer: Explorer) -> None:
    explorer.target_box.value = "zebra"
    assert "There is no class &#x27;zebra&#x27;" in explorer._message.value
    explorer.target_box.value = ""
    assert explorer.message == ""


def test_error_of_a_method_is_said_in_the_widget(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any, images: Any, targets: Any) -> Any:
        raise ArithmeticError("no sum <b>today</b>")

    monkeypatch.setitem(METHODS, "broken", None)
    cl.register("broken", broken)
    explorer.method_list.options = (*explorer.method_list.options, "broken")
    explorer.method_list.value = ("caap", "broken")
    finished(explorer)
    until(lambda: bool(explorer.message))
    assert "ArithmeticError: no sum &lt;b&gt;today" in explorer._message.value
    assert list(explorer.maps) == ["caap"]  # what can be shown is shown


def test_figure_shows_what_the_widget_shows(explorer: Explorer) -> None:
    explorer.photo.chosen = [2, 3]
    titles = [ax.get_title() for ax in explorer.to_figure().axes]
    name = explorer.maps["caap"].target_name
    assert titles[:3] == ["demo: image 0", f"caap for '{name}'", f"rollout for '{name}'"]


def test_uploads_that_are_no_images_get_a_sentence(explorer: Explorer, tmp_path: Path) -> None:
    count = len(explorer.photos)
    for name, content in (("a.pdf", b"%PDF-1.7"), ("b.png", b"\x89PNG\r\n\x1a\n broken"), ("c.jpg", b" ")):
        explorer.upload.set_trait("file", (name, content))
        assert explorer.message == f"{name} is not an image in a format that Pillow can read, or it is damaged."
    path = tmp_path / "thin.png"
    Image.new("RGB", (400, 2)).save(path)
    explorer.upload.set_trait("file", ("thin.png", path.read_bytes()))
    assert explorer.message.startswith("thin.png is 400 x 2 pixels, thinner than")
    assert len(explorer.photos) == count


def test_unfit_input_is_refused_before_anything_runs(model: cl.HookedViT, scenes: list[Any]) -> None:
    with pytest.raises(InputError, match="There is no method 'caaap'"):
        explore(model, scenes, methods="caaap")
    with pytest.raises(InputError, match="does not run on demo-cnn"):
        explore(cl.load_model("demo-cnn"), scenes, methods="rollout")
    with pytest.raises(InputError, match="There is no class"):
        explore(model, scenes, target="zebra")
    with pytest.raises(InputError, match="shows one image; 3 were given"):
        layer_sweep(model, [scene.image for scene in scenes])


def test_explore_a_cnn(scenes: list[Any]) -> None:
    made = explore(cl.load_model("demo-cnn"), scenes[0], methods=["caap", "grad_cam"])
    finished(made)
    assert list(made.maps) == ["caap", "grad_cam"]
    assert "rollout" not in made.method_list.options
    assert not made.message
    made.close()


def test_explore_a_mixer_without_a_choice(scenes: list[Any]) -> None:
    """Nothing chosen stands for CAAP where it runs, else for the first method that does."""
    mixer = MlpMixer(img_size=64, patch_size=8, embed_dim=16, num_blocks=2, num_classes=3).eval()
    made = explore(cl.HookedMixer(mixer), scenes[0], methods=["input_x_gradient"])
    made.method_list.value = ()
    finished(made)
    assert list(made.maps) == list(made.method_list.options[:1]) and not made.message
    made.close()


def test_images_of_all_kinds(model: cl.HookedViT, scenes: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    scenes[0].image.save(path)
    forms: dict[str, Any] = {
        f"'{path}'": path,
        "image": scenes[0].image,
        "image.image": scenes[0],
        "images[0].image": scenes[:1],
        "images[0]": [scenes[0].image],
    }
    for call, images in forms.items():
        (photo,) = photos_of(model, images)
        assert photo.call == call
        assert np.array_equal(photo.pixels, np.asarray(scenes[0].image))
    data = cl.open_images(f"folder:{tmp_path}")
    assert [(photo.name, photo.call) for photo in photos_of(model, data)] == [("scene.png", "images[0].image")]


# -- layer_sweep ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(model: cl.HookedViT, scenes: list[Any]) -> Iterator[LayerSweep]:
    made = layer_sweep(model, scenes[0].image)
    finished(made)
    yield made
    made.close()


def test_slider_shows_the_single_call(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    changes: list[dict[str, Any]] = [{"cutoff": 3}, {"blank": "noise"}, {"neighbourhood": "none"}, {"context": "free"}]
    for change in [*changes, {"start": 2}, {"context": "clamped"}]:
        for name, value in change.items():
            getattr(sweep, name).value = value
        finished(sweep)
        expected = cl.caap(model, scenes[0].image, **sweep.settings)
        assert sweep.map is not None
        assert torch.equal(sweep.map.scores, expected.scores), sweep.settings
        said = eval(
            sweep.link.split("\n")[0].removeprefix("m = "), {"cl": cl, "model": model, "image": scenes[0].image}
        )
        assert torch.equal(said.scores, expected.scores)
    for name, value in {"start": 0, "blank": "white", "neighbourhood": "box1", "cutoff": 5}.items():
        getattr(sweep, name).value = value
    finished(sweep)


def test_curve_is_that_of_the_sweep(sweep: LayerSweep, model: cl.HookedViT, scenes: list[Any]) -> None:
    expected = cl.sweep_cutoffs(model, [scenes[0].image], progress=False).to_dataframe().set_index("cutoff")
    for metric in ("insdel", "insertion", "deletion"):
        sweep.metric.value = metric
        assert list(sweep.values) == list(range(9))
        np.testing.assert_allclose(
            list(sweep.values.values()), expected.loc[list(sweep.values), metric], atol=1e-6, rtol=0
        )
        assert sweep.curve.series[0]["values"] == list(sweep.values.values())
    sweep.metric.value = "insdel"


def test_cutoff_stays_above_the_start(sweep: LayerSweep) -> None:
    sweep.cutoff.value = 2
    sweep.start.value = 4
    assert (sweep.cutoff.value, sweep.cutoff.min, sweep.message) == (5, 5, "")
    sweep.curve.current = 1  # a click on the chart
    assert sweep.cutoff.value == 5
    sweep.start.value = 0
    sweep.curve.current = 1
    assert sweep.cutoff.value == 1
    sweep.cutoff.value = 5
    finished(sweep)


def test_nearest_cutoffs_come_first(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    go, work = threading.Event(), Worker._work
    monkeypatch.setattr(Worker, "_work", lambda self: (go.wait(), work(self)))
    made = layer_sweep(model, scenes[1].image)
    made.cutoff.value = 2
    go.set()
    finished(made)
    distances = [abs(cutoff - 2) for cutoff in made._here.maps]
    assert len(distances) == 9 and distances == sorted(distances)
    made.close()


def test_another_class_needs_new_curves_and_no_new_maps(sweep: LayerSweep, scenes: list[Any]) -> None:
    maps = dict(sweep._here.maps)
    sweep.target_box.value = str(scenes[0].labels[0])
    finished(sweep)
    assert sweep._here.maps == maps
    assert sweep.map is not None and sweep.map.target == scenes[0].labels[0]
    assert len(sweep.values) == 9
    sweep.target_box.value = ""
    finished(sweep)


def test_sweep_figure(sweep: LayerSweep) -> None:
    left, right = sweep.to_figure().axes[:2]
    assert "cutoff 5" in left.get_title()
    assert right.get_xlabel() == "cutoff (blocks patched)"
    assert len(right.lines[0].get_xdata()) == 9


def test_overlay_colours_are_those_of_the_plot(sweep: LayerSweep) -> None:
    m = sweep.map
    assert m is not None
    colours = map_colours(m)
    assert colours.shape == (8, 8, 4)
    row, col = m.rank()[0]
    assert colours[row, col].tolist() == [253, 231, 36, 255]  # the end of viridis
