"""What is explained, as a model's logits are read for it: classes, contrasts, directions, functions."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.models.explained import explained, predicted_targets, several_explained, targets_of
from caap_lab.models.lock import locked
from caap_lab.models.targets import Contrast, Logit
from helpers.black_boxes import small_black_box
from helpers.cnns import small_cnn
from helpers.mixers import small_mixer
from helpers.models import build, random_images, timm_model


@pytest.fixture(scope="module")
def model() -> HookedViT:
    return build("vit", torch.float64)


@pytest.fixture(scope="module")
def clip() -> HookedViT:
    generator = torch.Generator().manual_seed(0)
    texts = {prompt: torch.randn(7, generator=generator) for prompt in ("cat", "dog", "grass")}
    return build("clip").with_prompts(texts, logit_scale=50.0)


def test_values_and_probabilities(model: HookedViT) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = [2, cl.logit("class 2"), cl.contrast(2, 5), cl.contrast("class 2"), lambda y: y.square().sum(-1)]
    targets = targets_of(model, given, 5)
    of = [row[2] for row in logits]
    expected = [of[0], of[1], of[2] - logits[2, 5], of[3] - logits[3].mean(), logits[4].square().sum()]
    assert torch.allclose(targets.value(logits), torch.stack(expected))
    softmax = logits.softmax(1)[:, 2]
    assert torch.allclose(
        targets.probability(logits),
        torch.stack([softmax[0], softmax[1], expected[2].sigmoid(), softmax[3], expected[4]]),
    )
    logs = targets.probability(logits, log=True)
    assert torch.allclose(logs[:4].exp(), targets.probability(logits)[:4]) and logs[4] == expected[4]
    sigmoids = targets.probability(logits, "sigmoid")[:4]
    assert torch.allclose(sigmoids, torch.stack(expected[:4]).sigmoid())
    (rank,) = targets_of(model, lambda y: (y > y[:, 2:3]).sum(1), 1)
    assert torch.equal(rank.value(logits), (logits > logits[:, 2:3]).sum(1).double())  # counts are numbers, too
    assert [target.given for target in targets[:4]] == [2, 2, Contrast(2, 5), Contrast(2)]
    assert [target.index for target in targets] == [2, 2, 2, 2, None]
    assert targets[:2].indices == [2, 2] and targets.indices is None
    twice = targets.repeat(2)
    assert torch.equal(twice.value(logits.repeat(2, 1))[5:], targets.value(logits))
    one_by_one = [target.value(row) for target, row in zip(targets, logits, strict=True)]
    assert torch.equal(torch.stack(one_by_one), targets.value(logits))
    assert predicted_targets(model, logits)[3].given == int(logits[3].argmax())


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "dino_head4", "siglip"])
def test_a_direction_is_a_column_of_a_model_that_shares_all(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    width = model.classifiers[0].in_features
    vector = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept: dict[str, Tensor] = {}
    handles = [
        part.register_forward_hook(lambda part, x, y, name=str(i): kept.update({name: x[0]}))
        for i, part in enumerate(model.classifiers)
    ]
    direction = cl.direction(vector, "probe")
    other, targets = explained(model, [direction, 3], 2)
    with torch.no_grad():
        logits = other(images)
        expected = torch.stack([features @ vector for features in kept.values()]).mean(0)
        assert (targets.value(logits)[0] - expected[0]).abs() < 1e-10 and targets.value(logits)[1] == logits[1, 3]
        for handle in handles:
            handle.remove()
        assert torch.equal(model(images), other(images)[:, :7]) or torch.allclose(model(images), logits[:, :7])
    assert (other.n_classes, other.fingerprint, other.class_names) == (7, model.fingerprint, model.class_names)
    assert logits.shape == (2, 8) and model(images).shape == (2, 7) and not model.directions
    heads = {id(parameter) for part in model.classifiers for parameter in part.parameters()}
    own = {id(parameter) for parameter in model.parameters()} - heads
    assert own <= {id(parameter) for parameter in other.parameters()}
    assert explained(other, direction, 1)[0] is other
    with model.hooks(fwd_hooks=[("hook_logits", lambda x, hook: kept.update(logits=x))]):
        other(images)
    assert kept["logits"].shape == (2, 7)  # hooks on the model see its classes
    again, both = several_explained(model, {"a": direction, "b": cl.direction(-vector, "back"), "c": 1}, 1)
    values = {name: one.value(again(images[:1]))[0] for name, one in both.items()}
    assert torch.allclose(values["a"], -values["b"]) and torch.allclose(values["a"], expected[0])


def test_a_model_with_directions_is_held_with_its_own() -> None:
    model = build("vit")
    other, _ = explained(model, cl.direction(torch.ones(24), "ones"), 1)
    found = []
    thread = threading.Thread(target=lambda: (other(random_images(model, 1)), found.append(True)))
    with locked(model.body, "model"):
        thread.start()
        thread.join(0.2)
        assert not found
    thread.join(10)
    assert found


def test_directions_of_other_kinds_of_models() -> None:
    for model in (small_cnn("resnet18"), small_cnn("vgg_bn"), small_mixer()):
        head = next(part for part in reversed(list(model.body.modules())) if isinstance(part, torch.nn.Linear))
        other, targets = explained(model, cl.direction(head.weight[2], "two"), 1)
        image = random_images(model, 1)
        with torch.no_grad():
            assert torch.allclose(targets.value(other(image)) + head.bias[2], model(image)[:, 2], atol=1e-5)
    tower = HookedViT(timm_model("vit_base_patch16_224", num_classes=0))
    vector = np.linspace(-1, 1, 24, dtype=np.float32)
    other, targets = explained(tower, cl.direction(vector, "probe of features"), 1)
    image = random_images(tower, 1)
    with torch.no_grad():
        assert torch.allclose(targets.value(other(image)), tower(image) @ torch.from_numpy(vector), atol=1e-5)
    with pytest.raises(InputError, match="has no classifier, so it has no targets"):
        explained(tower, [cl.direction(vector, "probe"), 1], 2)
    m = cl.attribute(tower, image, "libra_ixg_plus", cl.direction(vector, "probe"))
    assert m.target_name == "probe" and m.scores.std() > 0 and m.fingerprint == tower.fingerprint


def test_texts_as_classes_are_explained_by_contrast(clip: HookedViT) -> None:
    """All logits of text embeddings share a large part, which says nothing of a class."""
    images = random_images(clip, 2)
    with torch.no_grad():
        logits = clip(images)
    for given, contrast in (
        ("dog", Contrast(1)),
        (1, Contrast(1)),
        (cl.logit("dog"), Logit(1)),
        (cl.contrast(1, 2),) * 2,
    ):
        (target,) = targets_of(clip, given, 1)
        assert target.given == contrast and targets_of(clip, target.given, 1)[0] == target
    assert torch.equal(targets_of(clip, cl.logit(1), 2).value(logits), logits[:, 1])
    assert torch.allclose(targets_of(clip, 1, 2).value(logits), logits[:, 1] - logits.mean(1))
    assert targets_of(clip, 1, 1).name == "dog against the mean of all classes"
    assert [one.given for one in predicted_targets(clip, logits)] == [Contrast(int(row.argmax())) for row in logits]
    m = cl.caap(clip, images[0], progress=False)
    assert m.target == Contrast(int(logits[0].argmax())) and "against the mean of all classes" in repr(m)
    assert torch.allclose(m.scores, m.all_scores[..., m.target_class] - m.all_scores.mean(-1), atol=1e-5)
    assert m.for_target("cat").target == Contrast(0) and m.for_target(cl.logit("cat")).target == Logit(0)
    one = clip.with_prompts({"cat": clip.head.text_embeddings[0]})
    assert targets_of(one, "cat", 1)[0].given == 0  # one text has no others


def test_a_text_is_a_direction(clip: HookedViT) -> None:
    text = torch.randn(7, generator=torch.Generator().manual_seed(5))
    other, targets = explained(clip, cl.direction(text, "a tree"), 2)
    images = random_images(clip, 2)
    with torch.no_grad():
        expected = 50 * F.cosine_similarity(build("clip")(images), text[None])
        assert torch.allclose(targets.value(other(images)), expected, atol=1e-4)


WRONG = [
    (lambda: cl.contrast(1, 1), "compares a class with itself"),
    (lambda: cl.contrast("cow"), "There is no class 'cow'"),
    (lambda: cl.logit(7), "Class 7 does not exist"),
    (lambda: [cl.contrast(1)] * 3, "3 targets were given for 2 images"),
    (lambda: cl.direction(torch.ones(9), "d"), "'d' has 9 values; this model's head reads 24"),
    (lambda: lambda logits: logits, r"must return one number per row of logits, a tensor \[3\]"),
    (lambda: lambda logits: 1.0, "it returned float"),
    (lambda: lambda logits: logits[:, 9], "fails on logits .* IndexError"),
    (lambda: lambda logits: (logits - logits.mean())[:, 0], "reduce over the last axis only"),
    (lambda: {"a": 1}, "the index or the name of a class, not dict"),
    (lambda: cl.direction(torch.zeros(24), "d"), "'d' is zero, or holds NaN"),
    (lambda: cl.direction(torch.full((24,), torch.nan), "d"), "'d' is zero, or holds NaN"),
    (
        lambda: cl.direction(torch.ones(1, 24), "d"),
        r"torch.float32 \[1, 24\]; expected a floating-point tensor \[width\]",
    ),
    (lambda: cl.direction(torch.ones(24), ""), "needs a name for captions"),
]


@pytest.mark.parametrize("make, message", WRONG, ids=[message for _, message in WRONG])
def test_what_is_no_target(model: HookedViT, make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explained(model, make(), 2)


def test_what_directions_need() -> None:
    ones = cl.direction(torch.ones(24), "ones")
    with pytest.raises(InputError, match="is a black box: the feature that its head reads is not known"):
        explained(small_black_box(), ones, 1)
    model = build("vit")
    model.vit.head = torch.nn.Sequential(torch.nn.Linear(24, 7), torch.nn.Tanh())
    with pytest.raises(InputError, match="this model's head ends with Tanh"):
        explained(model, ones, 1)
    model.vit.head = torch.nn.Sequential(
        torch.nn.Linear(24, 9), torch.nn.GELU(), torch.nn.Linear(9, 7), torch.nn.Identity()
    )
    nine = cl.direction(torch.ones(9), "nine")
    other, targets = explained(model, nine, 1)
    image = random_images(model, 1)
    with torch.no_grad(), model.hooks(fwd_hooks=[]):
        inner = model.vit.head[:2](model.run_with_cache(image)[1]["hook_pooled"])
        assert torch.allclose(targets.value(other(image)), inner.sum(1), atol=1e-5)
    with pytest.raises(InputError, match="is always 0 for a head with one output"):
        explained(HookedViT(timm_model("vit_base_patch16_224", num_classes=1)), cl.contrast(0), 1)


def test_scores_of_half_formats_are_rounded_once() -> None:
    """Also functions with constants of float32, which the model's own format would refuse."""
    half, wide = (build("vit", dtype) for dtype in (torch.bfloat16, torch.float32))
    weights = torch.linspace(-1, 1, 7)
    logits = half(random_images(half, 2)).detach()
    for given in (Contrast(1, 2), Contrast(3), lambda rows: rows @ weights):
        (_, of_half), (_, of_wide) = explained(half, given, 2), explained(wide, given, 2)
        torch.testing.assert_close(of_half.value(logits), of_wide.value(logits.float()), rtol=0, atol=0)
        torch.testing.assert_close(of_half.probability(logits), of_wide.probability(logits.float()), rtol=0, atol=0)
    _, doubled = explained(wide, lambda rows: rows @ weights, 2)  # some methods run a copy in float64
    torch.testing.assert_close(doubled.value(logits.double()), logits.float() @ weights, rtol=0, atol=0)
    parts = cl.logit_attribution(half, random_images(half, 2), lambda rows: rows @ weights, progress=False)
    assert parts.total.shape == (2,)
