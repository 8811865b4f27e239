"""What every method keeps, whatever its formula: one table of facts, all methods of the registry, all kinds of models.

Which methods there are comes from the registry; what is particular to one stands in `helpers.methods.FACTS`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from helpers.black_boxes import small_black_box
from helpers.cnns import feature_grid, small_cnn
from helpers.methods import FACTS, QUICK, Options
from helpers.mixers import small_mixer
from helpers.models import build, random_images, randomise, timm_model
from helpers.passes import Passes
from helpers.subjects import build_subject, kind_of, subjects
from helpers.untouched import untouched

NAMES = list(METHODS)
VARIANTS = [(name, options) for name in NAMES for options in (QUICK[name], *FACTS[name].others)]


def variant_id(name: str, options: Options) -> str:
    return ",".join([name, *(f"{key}={value}" for key, value in options.items() if options != QUICK[name])])


def options_on(name: str, options: Options, kind: str) -> Options:
    """Those of the options that the method has on this kind of model."""
    return {option: value for option, value in options.items() if option in METHODS[name].options[kind]}


ONE_OF_A_KIND = ("dinov2_registers", "resnet18", "mixer", "mixer odd_grid", "plain_net")
"""Enough for a method that gives images and reads logits, whatever is between them, or that combines others."""
TWO_VITS = ("dinov2_registers", "rope_mixed")
"""Enough for a variant of a method that is tested on all of them; they have no trait in common."""


def is_quick(name: str, options: Options, subject: str) -> bool:
    """Whether a case among the quick subjects says what no other one says."""
    reads_little = METHODS[name].reads == "pixels" or METHODS[name].family == "combination"
    return (subject in ONE_OF_A_KIND or not reads_little) and (options == QUICK[name] or subject in TWO_VITS)


def cases() -> list:
    """Every method with each of its variants on every kind of model that it runs on."""
    found = []
    for name, options in VARIANTS:
        for subject in subjects(METHODS[name].models):
            marks = () if isinstance(subject, str) else subject.marks
            key = subject if isinstance(subject, str) else subject.values[0]
            if options != QUICK[name] and kind_of(key) != "vit":
                continue
            marks = marks if is_quick(name, options, key) else pytest.mark.slow
            found.append(pytest.param(name, options, key, marks=marks, id=f"{variant_id(name, options)}-{key}"))
    return found


EVERY_NAME = pytest.mark.parametrize("name", NAMES)
EVERY_VARIANT = pytest.mark.parametrize(
    ("name", "options"), [pytest.param(*variant, id=variant_id(*variant)) for variant in VARIANTS]
)


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest score."""
    return float((one.double() - other.double()).abs().max() / other.double().abs().max().clamp_min(1e-300))


def expected_grid(name: str, model: HookedModel, subject: str) -> tuple[int, int]:
    if FACTS[name].pixels:
        return model.image_size
    if FACTS[name].feature_maps and isinstance(model, BlackBoxModel):
        form = model.map_form(model.find_layer())
        return form.rows, form.cols
    return feature_grid(subject) if FACTS[name].feature_maps and model.kind == "cnn" else model.grid


def test_every_method_has_facts() -> None:
    assert set(FACTS) == set(METHODS)


@pytest.mark.parametrize(("name", "options", "subject"), cases())
def test_a_map_is_of_its_image_and_target_alone(name: str, options: Options, subject: str) -> None:
    """Whatever the batch, the chunks, what the parameters are frozen for and the caller's own gradients."""
    model = build_subject(subject, torch.float64)
    images = random_images(model, 2)
    options = options_on(name, options, model.kind)
    if options == FACTS[name].needs_class_token and "cls" not in model.spec.prefix:
        with pytest.raises(cl.InputError, match="no class token"):
            cl.attribute(model, images, name, [1, 4], progress=False, **options)
        return
    if not model.gives(METHODS[name].reads):
        with pytest.raises(cl.InputError, match=f"{name} needs feature maps, but {subject} has none; methods that run"):
            cl.attribute(model, images, name, [1, 4], progress=False, **options)
        return
    with untouched(model, images):
        together = cl.attribute(model, images, name, [1, 4], progress=False, **options)
    grid = expected_grid(name, model, subject)
    assert [(m.method, m.target, m.grid) for m in together] == [(name, target, grid) for target in (1, 4)]
    for m in together:
        assert m.scores.isfinite().all() and (m.scores.std() > 0 or FACTS[name].may_be_zero)
        assert m.fingerprint == model.fingerprint and set(options) <= set(m.settings)

    in_chunks = {"chunk_size": 3} if "chunk_size" in METHODS[name].options[model.kind] else {}
    model.requires_grad_(False)
    with untouched(model, images), torch.no_grad():
        alone = cl.attribute(model, images[1], name, 4, **options, **in_chunks)
        assert difference(alone.scores, together[1].scores) < 2e-7  # float32's own rounding
        if FACTS[name].answers_every_class:
            other = cl.attribute(model, images[1], name, 5, **options)
            both_zero = FACTS[name].may_be_zero and not alone.scores.any() and not other.scores.any()
            if not both_zero:
                assert (difference(other.scores, alone.scores) > 1e-6) == METHODS[name].class_specific


class Stop(TorchFunctionMode):
    """Counts layers that run, and raises an error at one of them."""

    def __init__(self, at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.count, self._at, self._error = 0, at, error

    def __torch_function__(self, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        if getattr(function, "__name__", "") in ("linear", "conv2d"):
            self.count += 1
            if self.count == self._at:
                raise self._error("stopped by the test")
        return function(*inputs, **(options or {}))


@EVERY_VARIANT
def test_nothing_is_left_after_an_error(name: str, options: Options) -> None:
    model = build("vit")
    images = random_images(model, 1)
    with Stop() as counted:
        expected = cl.attribute(model, images, name, 3, **options)
    half = counted.count // 2
    for error in (RuntimeError, KeyboardInterrupt):
        with untouched(model, images), pytest.raises(error, match="stopped by the test"), Stop(half, error):
            cl.attribute(model, images, name, 3, **options)
    assert torch.equal(cl.attribute(model, images, name, 3, **options).scores, expected.scores)


@EVERY_VARIANT
def test_single_precision_gives_the_same_map(name: str, options: Options) -> None:
    model, exact = build("vit"), build("vit", torch.float64)
    images = random_images(model, 1)
    m = cl.attribute(model, images, name, 3, **options)
    expected = cl.attribute(exact, images.double(), name, 3, **options)
    assert m.scores.dtype == torch.float32
    assert difference(m.scores, expected.scores) < FACTS[name].single_precision


@EVERY_NAME
def test_half_precision_runs(name: str) -> None:
    model = build("vit", torch.bfloat16)
    m = cl.attribute(model, random_images(model, 1), name, 3, **QUICK[name])
    assert m.scores.isfinite().all() and m.scores.std() > 0


@EVERY_VARIANT
def test_the_sign_is_what_the_map_says(name: str, options: Options) -> None:
    model = build("vit")
    maps = cl.attribute(model, random_images(model, 3, seed=4), name, [0, 1, 2], progress=False, **options)
    lowest, highest = (min(float(m.scores.min()) for m in maps), max(float(m.scores.max()) for m in maps))
    if maps[0].sign == "positive":
        assert lowest >= 0
    if maps[0].sign == "signed":  # a method that never goes below 0 would be called positive
        assert lowest < 0 < highest
    assert options != QUICK[name] or maps[0].sign == METHODS[name].sign


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].sign == "positive"])
@pytest.mark.parametrize("family", ["siglip", "dino_head4"])
def test_positive_maps_are_positive_with_other_heads(name: str, family: str) -> None:
    model = build(family)
    for target in (0, model.n_classes - 1):
        m = cl.attribute(model, random_images(model, 1, seed=4), name, target, **QUICK[name])
        assert m.sign == "positive" and m.scores.min() >= 0


@EVERY_NAME
def test_a_model_that_says_the_same_of_all_images(name: str) -> None:
    """Everything ties: maps are finite and come out the same each time."""
    model = build("vit")
    torch.nn.init.zeros_(model.vit.head.weight)
    image = random_images(model, 1)
    first, again = (cl.attribute(model, image, name, 1, **QUICK[name]) for _ in range(2))
    assert first.scores.isfinite().all() and torch.equal(first.scores, again.scores)


SEEDED = [(name, facts.seeded) for name, facts in FACTS.items() if facts.seeded is not None]


@pytest.mark.parametrize(("name", "options"), SEEDED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_seed_decides(name: str, options: Options) -> None:
    model = build("vit")
    images = random_images(model, 1)
    options = {**QUICK[name], **options}
    first, again, other = (cl.attribute(model, images, name, 0, **{**options, "seed": s}).scores for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_every_method_with_a_seed_is_seeded() -> None:
    assert {name for name, _ in SEEDED} == {name for name in NAMES if "seed" in METHODS[name].options["vit"]}


# --- cost ---


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in NAMES for kind in METHODS[name].models])
def test_the_cost_is_what_the_method_states(name: str, kind: str) -> None:
    method = METHODS[name]
    if kind == "vit":
        model: HookedModel = cl.HookedViT(randomise(lambda: timm_model("vit_base_patch16_224", **FACTS[name].cost_of)))
    else:
        model = {"cnn": lambda: small_cnn("resnet18"), "mixer": small_mixer, "black_box": small_black_box}[kind]()
    size, image = ModelSize.of(model), random_images(model, 1)
    options = options_on(name, QUICK[name], kind)
    settings = {**method.options[kind], **options}
    assert method.forwards.count is not None and method.backwards.count is not None
    if FACTS[name].keeps_blank_runs:
        cl.attribute(model, image, name, 3, **options)
    assert not model.why_no_gradient  # asked once of a black box, and kept
    with Passes(model) as passes:
        cl.attribute(model, image, name, 3, **options)
    assert passes.backwards == FACTS[name].readings * method.backwards.count(size, settings)
    assert FACTS[name].cost_fits(passes.forwards, method.forwards.count(size, settings), size)


@EVERY_NAME
def test_the_text_of_the_cost_says_the_number(name: str) -> None:
    """Sums of numbers, N and channels are computed; other texts are for people alone."""
    size = ModelSize("vit", (64, 64), (8, 8), 192)
    for passes in (METHODS[name].forwards, METHODS[name].backwards):
        terms = passes.text.split(" + ")
        known = {"N": size.n_patches, "channels": size.channels}
        if all(term in known or term.isdecimal() for term in terms):
            total = sum(known.get(term) or int(term) for term in terms)
            assert passes.count is not None and passes.count(size, METHODS[name].options["vit"]) == total


# --- what is given ---


@pytest.mark.parametrize("name", ["caap", "libra_ixg_plus"])
def test_targets_in_any_form(name: str) -> None:
    model = build("vit")
    images = random_images(model, 2)
    with torch.no_grad():
        own = model(images).argmax(dim=1).tolist()
    forms: list[Any] = [own, np.array(own), torch.tensor(own), [str(target) for target in own], None]
    scores = [
        torch.stack([m.scores for m in cl.attribute(model, images, name, form, progress=False, **QUICK[name])])
        for form in forms
    ]
    assert all(torch.equal(found, scores[0]) for found in scores[1:])


@EVERY_NAME
def test_bad_input_is_refused_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 2)
    cnn = small_cnn("resnet18")

    def refuses(message: str, *given: Any, **options: Any) -> None:
        with pytest.raises(cl.InputError, match=message):
            cl.attribute(*given[:2], name, *given[2:], **options)

    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    refuses(f"{name} has no option 'no_such'", model, images, 0, no_such=1)
    refuses("batch_size must be a whole number", model, images, 0, batch_size=0)
    refuses("is not an image. Give a path", model, {"a": 1}, 0)
    refuses("No images were given", model, [], 0)
    refuses("missing.png", model, [images, tmp_path / "missing.png"], 0)
    refuses("Class 7 does not exist", model, images, 7)
    refuses("3 targets were given for 2 images", model, images, [0, 1, 2])
    refuses("training mode", model.train(), images, 0)
    if "cnn" not in METHODS[name].models:
        refuses(f"{name} works on .*; .* is a CNN", cnn, random_images(cnn, 1), 0)
    if "mixer" not in METHODS[name].models:
        mixer = small_mixer()
        refuses(f"{name} works on .*; MlpMixer is a Mixer", mixer, random_images(mixer, 1), 0)
    if "black_box" not in METHODS[name].models:
        black_box = small_black_box()
        refuses(f"{name} works on .*; plain_net is a black box", black_box, random_images(black_box, 1), 0)


WRONG = [
    pytest.param(name, options, message, id=f"{name}-{options}")
    for name, facts in FACTS.items()
    for options, message in facts.wrong
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_wrong_options_are_refused(name: str, options: Options, message: str) -> None:
    model = build("vit")
    with pytest.raises(cl.InputError, match=message):
        cl.attribute(model, random_images(model, 1), name, 0, **options)


@EVERY_NAME
def test_the_map_is_drawn_and_read_back(name: str, tmp_path: Path) -> None:
    model = build("vit")
    m = cl.attribute(model, random_images(model, 1), name, 3, **QUICK[name])
    assert isinstance(m, cl.AttributionMap)
    m.upsample()
    m.plot()
    saved = cl.AttributionMap.load(m.save(tmp_path / "map.safetensors"))
    assert torch.equal(saved.scores, m.scores) and saved.settings == m.settings
