"""The registry: one call for all methods, methods of one's own, and what is refused."""

import gc
import resource
from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from helpers.models import build, random_images

NAMES = list(METHODS)
PAPER = ("grad_cam", "rollout", "transformer_attribution", "vit_cx", "tam", "ixg_plus", "libra_ixg_plus", "mda")


def scenes(n: int) -> list:
    return [scene.image for scene in cl.demo_images("two", n, seed=3)]


def test_the_papers_methods_and_controls_are_there() -> None:
    assert {"caap", "simple_insertion", "simple_deletion", "mutex", *PAPER} <= set(NAMES)
    table = cl.methods()
    assert list(table.index) == NAMES
    assert (table[["family", "source", "needs", "forwards", "backwards"]] != "").all().all()
    assert not table.loc["rollout", "class_specific"] and table.loc["caap", "class_specific"]


def test_a_function_of_ones_own_is_a_method() -> None:
    def corner(model, images, targets, *, power: float = 1.0):
        scores = torch.zeros(len(images), *model.spec.grid)
        scores[:, 0, 0] = targets.float() ** power
        return scores

    cl.register("corner", corner, forwards="0")
    cl.register("corner", corner, source="me", forwards="0")  # a notebook's cell is run twice
    try:
        assert cl.methods().loc["corner", "source"] == "me"
        m = cl.attribute(cl.load_model("demo"), scenes(1)[0], "corner", 3, power=2)
        assert m.scores[0, 0] == 9 and m.settings == {"power": 2}
        with pytest.raises(cl.InputError, match=r"corner has no option 'pover'. Nearest: power. Its options are power"):
            cl.attribute(cl.load_model("demo"), scenes(1)[0], "corner", 3, pover=2)
    finally:
        del METHODS["corner"]
    with pytest.raises(cl.InputError, match="'rollout' is a built-in method"):
        cl.register("rollout", corner)


def test_what_cannot_be_mapped_is_refused() -> None:
    assert cl.methods().loc["caap", "sign"] == "level"
    with pytest.raises(cl.InputError, match="sign='both' is not known; use one of signed, positive, level"):
        cl.register("wrong", lambda model, images, targets: images[:, 0], sign="both")
    model, image = cl.load_model("demo"), scenes(1)[0]
    with pytest.raises(cl.InputError, match=r"no method 'rolout'\. Nearest: rollout"):
        cl.attribute(model, image, "rolout")
    with pytest.raises(cl.InputError, match="rollout works on Vision Transformers; demo-cnn is a CNN"):
        cl.attribute(cl.load_model("demo-cnn"), image, "rollout")
    with pytest.raises(cl.InputError, match="training mode"):
        cl.attribute(cl.load_model("demo").train(), image, "rollout")
    with pytest.raises(cl.InputError, match="batch_size must be"):
        cl.attribute(model, image, "rollout", batch_size=0)
    wrong = lambda model, images, targets: torch.zeros(5, 5)  # noqa: E731
    cl.register("wrong", wrong)
    try:
        with pytest.raises(cl.InputError, match=r"wrong must return scores \[1, row, col\]; it returned \[5, 5\]"):
            cl.attribute(model, image, "wrong")
    finally:
        del METHODS["wrong"]
    broken = build("vit")
    with torch.no_grad():
        broken.vit.blocks[0].mlp.fc1.weight.fill_(float("nan"))
    with pytest.raises(cl.InputError, match="NaN"):
        cl.attribute(broken, random_images(broken, 1), "ixg_plus", 0)


def test_an_image_among_the_settings_is_written_as_its_hash(tmp_path: Path) -> None:
    model, (image, blank) = cl.load_model("demo"), scenes(2)
    m = cl.attribute(model, image, "simple_insertion", 3, blank=blank)
    other = cl.attribute(model, image, "simple_insertion", 3, blank=model.preprocess(blank))
    assert m.settings["blank"].startswith("Image ") and other.settings["blank"].startswith("Tensor ")
    assert torch.equal(m.scores, other.scores)
    assert cl.AttributionMap.load(m.save(tmp_path / "m.safetensors")).settings == m.settings


@pytest.mark.parametrize("given", [None, 1, [], {"rollout": 1}, 1.5, cl.caap])
def test_what_is_no_name_of_a_method_is_refused(given: object) -> None:
    model, (image,) = cl.load_model("demo"), scenes(1)
    with pytest.raises(cl.InputError, match=r"is not the name of a method, such as 'caap'"):
        cl.attribute(model, image, given)  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="A method needs a name"):
        cl.register(given, lambda model, images, targets: images)  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="A method is a function"):
        cl.register("mine", "rollout")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 1.5, True, {"a": 1}, object()])
def test_what_is_no_image_is_refused(given: object) -> None:
    model = cl.load_model("demo")
    for run in (cl.caap, cl.attribute, cl.completeness_error):
        with pytest.raises(cl.InputError, match=r"is not an image. Give a path"):
            run(model, given)


def test_no_target_means_the_models_own_answer() -> None:
    model, images = cl.load_model("demo"), scenes(3)
    with torch.no_grad():
        expected = model(images).argmax(1).tolist()
    assert [m.target for m in cl.attribute(model, images, "libra_ixg_plus", progress=False)] == expected


@pytest.mark.slow
def test_two_hundred_maps_do_not_grow_memory() -> None:
    model, (image,) = cl.load_model("demo"), scenes(1)
    names = ("libra_ixg_plus", "grad_cam", "rollout", "transformer_attribution")

    def peak_after(rounds: int) -> int:
        for _ in range(rounds):
            for name in names:
                cl.attribute(model, image, name, 3)
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

    before = peak_after(10)
    assert peak_after(50) - before < 20_000
