"""CAAP with direction="remove": the blank's patches in the image's run, against plain patched runs and identities."""

from typing import Any

import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab.engine.blanks import blank_image, blank_run
from caap_lab.engine.settings import CONTEXTS
from caap_lab.models.neighbourhoods import Neighbourhood
from helpers.models import build, random_images
from helpers.passes import Passes
from helpers.plain_caap import plain_scores

FAMILIES = ("vit", "dinov2_registers", "siglip", "dino_head4")
CASES = [(family, context) for family in FAMILIES for context in CONTEXTS if (family, context) != ("siglip", "dropped")]


def own(model: cl.HookedViT, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image)[0]


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found.double() - expected.double()).abs().max()) < tolerance * float(
        expected.abs().max().clamp(min=1)
    )


@pytest.mark.parametrize("family, context", CASES)
def test_what_the_image_loses_when_the_blank_is_put_in_its_place(family: str, context: str) -> None:
    """Two runs, and a third for every patch in which the streams of the one are replaced by those of the other."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 3e-6))[: 1 + (family == "vit")]:
        model = build(family, dtype)
        image = random_images(model, 1)
        white = blank_image(model, "white")
        found = cl.caap(model, image, 0, cutoff=3, start=1, context=context, direction="remove")
        without = plain_scores(model, white, cutoff=3, start=1, blank=image, context=context)
        assert_close(found.all_scores, own(model, image) - without, tolerance)
        assert_close(found.scores, found.all_scores[..., 0], 1e-12)


def test_by_plain_hooks() -> None:
    """The free context once more, with nothing of the package but hook points."""
    model = build("vit", torch.float64)
    image, white = random_images(model, 1), blank_image(model, "white")
    _, streams = model.run_with_cache(white)
    found = cl.caap(model, image, 2, cutoff=2, context="free", neighbourhood="none", direction="remove").scores
    for patch in range(16):

        def put(x: Tensor, hook: Any, token: int = 1 + patch) -> Tensor:
            x = x.clone()
            x[:, token] = streams[hook.name][:, token]
            return x

        with torch.no_grad():
            hooks = [(f"blocks.{layer}.hook_resid_pre", put) for layer in range(2)]
            left = model.run_with_hooks(image, fwd_hooks=hooks)[0, 2]
        assert abs(float(found.flatten()[patch] - (own(model, image)[2] - left))) < 1e-6  # maps are kept in float32


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "cached"},
        {"attention": "cached_all", "tail": "shared"},
        {"tail": "interpolated", "neighbourhood": "box2"},
        {"context": "free", "neighbourhood": "cross1", "cutoff": 1.0},
        {"cutoff": 4},
        {"cutoff": 0},
    ],
    ids=str,
)
def test_it_is_a_map_with_the_roles_swapped(options: dict[str, Any]) -> None:
    """E-CAAP then takes the image's own queries, and so on."""
    model = build("dinov2_registers", torch.float64)
    image, other = random_images(model, 2).split(1)
    found = cl.caap(model, image, 3, blank=other, direction="remove", **options)
    swapped = cl.caap(model, other, 3, blank=image, **options)
    assert_close(found.all_scores, own(model, image) - swapped.all_scores, 1e-12)
    assert found.settings["blank"].startswith("image ") and found.settings["direction"] == "remove"
    assert "direction" not in swapped.settings


@pytest.mark.parametrize("blank", ["zero_activations", "mean_activations", "noise"])
def test_blanks(blank: str) -> None:
    model = build("vit", torch.float64)
    image, *others = random_images(model, 3).split(1)
    given = cl.blanks.mean_activations(others) if blank == "mean_activations" else blank
    streams = dict(enumerate(blank_run(model, given).resid))
    found = cl.caap(model, image, 1, cutoff=2, blank=given, direction="remove", context="free", neighbourhood="none")
    for patch in (0, 9):
        put = cl.Patch("resid_pre", range(2), [1 + patch], source=streams)
        with torch.no_grad():
            left = model.run_patched(image, [put])[0, 1]
        assert abs(float(found.scores.flatten()[patch] - (own(model, image)[1] - left))) < 1e-6


def test_it_loses_nothing_to_itself_and_everything_to_a_whole_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    itself = cl.caap(model, image, 1, cutoff=3, blank=image, direction="remove")
    assert itself.all_scores.abs().max() < 1e-10
    wide = Neighbourhood(tuple((r, c) for r in range(-4, 5) for c in range(-4, 5)))
    monkeypatch.setitem(cl.tokens.NEIGHBOURHOODS, "everything", wide)
    gone = own(model, image) - own(model, blank_image(model, "white"))
    for context in ("clamped", "free", "frozen"):
        whole = cl.caap(model, image, 1, neighbourhood="everything", context=context, direction="remove").all_scores
        assert_close(whole, gone.expand_as(whole), 1e-10)


def test_images_in_a_batch_and_chunks_do_not_meet() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    together = cl.caap(model, images, [0, 1, 2], direction="remove", progress=False)
    for image, target, m in zip(images, range(3), together, strict=True):
        alone = cl.caap(model, image, target, direction="remove", chunk_size=3)
        assert_close(alone.all_scores, m.all_scores, 1e-12)
    assert [m.target for m in cl.caap(model, images, direction="remove", progress=False)] == [
        int(own(model, image[None]).argmax()) for image in images
    ]


@pytest.mark.parametrize("score", ["logit", "prob", "logprob", "sigmoid"])
def test_scores_are_losses(score: str) -> None:
    model = build("vit")
    image = random_images(model, 1)
    logit = cl.caap(model, image, 3, direction="remove")
    found = cl.caap(model, image, 3, direction="remove", score=score)
    before = own(model, image)
    read = {"logit": lambda x: x, "prob": lambda x: x.softmax(-1), "logprob": lambda x: x.log_softmax(-1)}
    of = read.get(score, torch.sigmoid)
    assert_close(found.scores, (of(before) - of(before - logit.all_scores))[..., 3], 1e-5)
    assert found.score == f"drop in {score}" and found.sign == "signed"
    assert found.unit == f"drop in {score} of class 3"
    assert torch.equal(found.for_target(5).scores, cl.caap(model, image, 5, direction="remove", score=score).scores)


@pytest.mark.parametrize("name", ["contrast", "mean", "direction", "function"])
def test_any_target(name: str) -> None:
    """f(image) less f(the image without the patch), whatever f is."""
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    target: Any = {
        "contrast": cl.contrast(2, 5),
        "mean": cl.contrast(2),
        "direction": cl.direction(model.vit.head.weight[0].detach() - 1, "a probe"),
        "function": lambda logits: logits[:, :3].logsumexp(1),
    }[name]
    found = cl.caap(model, image, target, direction="remove")
    swapped = cl.caap(model, blank_image(model, "white"), target, blank=image)
    itself = cl.caap(model, image, target, blank=image)  # constant: the target's value of the image
    assert_close(found.scores, itself.scores - swapped.scores, 1e-5)


def test_targets_that_follow_from_one_pass() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    m, p = (cl.caap(model, image, 3, direction="remove", score=score) for score in ("logit", "prob"))
    for target in (cl.contrast(2, 5), cl.contrast(2)):
        assert_close(m.for_target(target).scores, cl.caap(model, image, target, direction="remove").scores, 1e-5)
    alone = cl.caap(model, image, cl.contrast(2), direction="remove", score="prob")
    assert_close(p.for_target(cl.contrast(2)).scores, alone.scores, 1e-5)
    assert alone.score == "drop in prob"
    for one, target in ((p, cl.contrast(2, 5)), (m, lambda logits: logits[:, 0])):
        with pytest.raises(cl.InputError, match="cannot be computed from caap's scores"):
            one.for_target(target)


def test_what_is_drawn_and_kept(tmp_path: Any) -> None:
    model = build("vit")
    m = cl.caap(model, random_images(model, 1), 3, direction="remove")
    labels = [axes.get_ylabel() + axes.get_xlabel() for axes in m.plot().axes]
    assert any("drop in logit of class 3, patch removed" in label for label in labels)
    again = cl.AttributionMap.load(m.save(tmp_path / "m.safetensors"))
    assert again.settings == m.settings and again.score == m.score
    with pytest.raises(cl.InputError, match="direction='remove' is for maps"):
        cl.interaction_check(model, m)
    with pytest.raises(cl.InputError, match="direction='remove' is for maps"):
        cl.caap_interactions(model, random_images(model, 1), 0, direction="remove")


def test_in_the_clamped_context_it_costs_what_insertion_does() -> None:
    """For the model's own prediction; the blank's run is kept from a first map."""
    model = cl.load_model("demo")
    image = cl.demo_images("single", 1, seed=0)[0].image
    counted = {}
    for direction in ("insert", "remove"):
        cl.caap(model, image, direction=direction)
        with Passes(model) as passes:
            cl.caap(model, image, direction=direction)
        counted[direction] = passes.forwards
    assert counted["remove"] == pytest.approx(counted["insert"])


def test_sweeps_and_benchmarks_keep_both_directions_apart(tmp_path: Any) -> None:
    model, scene = cl.load_model("demo"), cl.demo_images("single", 1, seed=0)[0]
    given = {"out": tmp_path, "metrics": ["faithfulness"], "protocol": "mutex", "progress": False}
    maps = {
        direction: cl.sweep_cutoffs(model, scene.image, scene.label, cutoffs=[2], direction=direction, **given)
        for direction in ("insert", "remove")
    }
    found = {direction: sweep.data["scores"].values.squeeze() for direction, sweep in maps.items()}
    for direction, scores in found.items():
        m = cl.caap(model, scene.image, scene.label, cutoff=2, direction=direction)
        assert abs(scores - m.scores.numpy()).max() < 1e-5
    assert abs(found["insert"] - found["remove"]).max() > 1
