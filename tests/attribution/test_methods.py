"""All registered methods through one call: what they promise, whatever their formula."""

import gc
import resource
from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from helpers.models import build, random_images

QUICK = {
    "rise": {"samples": 50},
    "tis": {"clusters": 8},
    "smoothgrad": {"samples": 4},
    "integrated_gradients": {"steps": 8},
}
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


@pytest.mark.parametrize("name", NAMES)
def test_maps_do_not_depend_on_the_batch_and_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    model = cl.load_model("demo-dinov2" if name in ("caap", "ixg_plus", "rollout") else "demo")
    images, options = scenes(3), QUICK.get(name, {})
    state = torch.random.get_rng_state()
    together = cl.attribute(model, images, name, [1, 2, 3], progress=False, **options)
    alone = cl.attribute(model, images[1], name, 2, **options)
    assert isinstance(together, list) and isinstance(alone, cl.AttributionMap)
    assert alone.method == name and alone.target == 2 and alone.fingerprint == model.fingerprint
    assert set(options) <= set(alone.settings)
    spread = alone.scores.max() - alone.scores.min()
    assert (together[1].scores - alone.scores).abs().max() <= 1e-4 * spread + 1e-7
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.has_hooks() and all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(block.attn.fused_attn for block in model.vit.blocks)
    alone.upsample()
    alone.plot()
    saved = cl.AttributionMap.load(alone.save(tmp_path / "map.safetensors"))
    assert torch.equal(saved.scores, alone.scores) and saved.settings == alone.settings


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].sign == "positive"])
@pytest.mark.parametrize("family", ["vit", "siglip", "dino_head4"])
def test_positive_methods_never_give_negative_scores(name: str, family: str) -> None:
    model = build(family)
    images = random_images(model, 3, seed=4)
    for target in (0, model.n_classes - 1):
        for found in cl.attribute(model, images, name, target, progress=False, **QUICK.get(name, {})):
            assert found.sign == "positive" and found.scores.min() >= 0


def test_signs_say_what_scores_do() -> None:
    model = build("vit")
    images = random_images(model, 3, seed=4)
    for name in NAMES:
        if METHODS[name].sign == "signed":  # a method that never goes below 0 would be called positive
            found = cl.attribute(model, images, name, [0, 1, 2], progress=False, **QUICK.get(name, {}))
            assert min(float(one.scores.min()) for one in found) < 0 < max(float(one.scores.max()) for one in found)
    assert cl.methods().loc["caap", "sign"] == "level"
    with pytest.raises(cl.InputError, match="sign='both' is not known; use one of signed, positive, level"):
        cl.register("wrong", lambda model, images, targets: images[:, 0], sign="both")


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].class_specific and name != "mda"])
def test_class_specific_methods_answer_the_asked_class(name: str) -> None:
    model = cl.load_model("demo")
    (image,) = scenes(1)
    options = QUICK.get(name, {})
    one, other = (cl.attribute(model, image, name, target, **options).scores for target in (1, 5))
    assert not torch.allclose(one, other)


COSTS = {
    "N": 64,
    "N + 1": 65,
    "1 + channels": 65,
    "1, and up to 54 with about N / 2 patches": 51,  # equal masks are run once
    "1, and up to 1024 with N / 2 patches": 493,  # so many different masks come from the 512 columns of a small model
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("caap", "mda", "vit_cx")])
def test_costs_are_what_the_registry_says(name: str) -> None:
    """Sequences into the first block, and gradients out of the head; caap's cost is a benchmark, two others' vary."""
    method = METHODS[name]
    model = cl.load_model("demo")
    passes = {"forwards": 0, "backwards": 0}

    def backward(gradient: torch.Tensor) -> None:
        passes["backwards"] += len(gradient)

    def enter(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        passes["forwards"] += len(output)

    def leave(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(backward)

    handles = [model.vit.blocks[0].norm1.register_forward_hook(enter), model.vit.head.register_forward_hook(leave)]
    method.function(model, scenes(1)[0], 3)
    for handle in handles:
        handle.remove()
    stated = {"forwards": method.forwards.text, "backwards": method.backwards.text}
    assert passes == {what: COSTS[text] if text in COSTS else int(text) for what, text in stated.items()}


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
        with pytest.raises(cl.InputError, match=r"wrong must give scores \[1, row, col\]; it gave \[5, 5\]"):
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
