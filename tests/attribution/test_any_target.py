"""What methods explain: contrasts, directions and functions of the logits, against models whose head was changed."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import caap_lab as cl
from caap_lab.attribution.map_target import map_targets
from caap_lab.attribution.registry import METHODS
from caap_lab.models.base import HookedModel
from helpers.black_boxes import SMALL as BLACK_BOXES
from helpers.cnns import SMALL as CNNS
from helpers.methods import QUICK
from helpers.models import ALL_FAMILIES, build, random_images
from helpers.subjects import MIXERS, build_subject

Rows = Callable[[Tensor], Tensor]


def with_rows(model: HookedModel, change: Rows) -> HookedModel:
    """A copy whose head has other rows: `change` makes weights, and biases as one column, of the head's own."""
    changed = copy.deepcopy(model)
    for linear in changed.classifiers:
        assert isinstance(linear, nn.Linear)
        weight, bias = change(linear.weight.detach()), change(linear.bias.detach()[:, None])[:, 0]
        linear.out_features, linear.weight, linear.bias = len(weight), nn.Parameter(weight), nn.Parameter(bias)
    return changed


def difference_head(model: HookedModel, of: int, against: int) -> HookedModel:
    """A model of two classes: the first one's logit is the difference, the second one's 0."""
    return with_rows(model, lambda rows: torch.stack([rows[of] - rows[against], torch.zeros_like(rows[0])]))


def centred_head(model: HookedModel) -> HookedModel:
    """A model that predicts the same, whose logits have the mean 0."""
    return with_rows(model, lambda rows: rows - rows.mean(dim=0))


def maps(model: HookedModel, images: Tensor, name: str, target: object) -> Tensor:
    options = {key: value for key, value in QUICK[name].items() if key in METHODS[name].options[model.kind]}
    found = cl.attribute(model, images, name, target, progress=False, **options)
    return torch.stack([m.scores for m in found]) if isinstance(found, list) else found.scores


def same(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 2e-6 * float(other.abs().max())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "mda" else n for n in METHODS])
def test_every_method_explains_any_target(name: str) -> None:
    """A contrast as a head of the difference does, and a direction and a function as the class that they read.

    Also of probabilities: the softmax of a difference and 0 is the difference's sigmoid.
    """
    model = build("vit", torch.float64)
    with torch.no_grad():
        model.vit.head.bias.zero_()
    images = random_images(model, 4)
    row = cl.direction(model.vit.head.weight[2], "row 2")
    together = maps(model, images, name, [cl.contrast(4, 1), cl.contrast(4), row, lambda logits: logits[:, 2]])
    assert same(together[0], maps(difference_head(model, 4, 1), images[0], name, 0))
    assert same(together[1], maps(centred_head(model), images[1], name, 4))
    of_class = cl.attribute(model, images[2:], name, 2, progress=False, **QUICK[name])
    if "prob" not in of_class[0].score:
        assert all(same(found, m.scores) for found, m in zip(together[2:], of_class, strict=True))
    else:  # a direction and a function have no probability
        assert cl.attribute(model, images[2], name, row, **QUICK[name]).score == "attribution to value"


BY_HEAD = ("dino_head4", "deit_distilled", "resnet18", "vgg_bn", "mixer", "plain_net")
SUBJECTS = [*ALL_FAMILIES, *CNNS, *MIXERS, *BLACK_BOXES]


@pytest.mark.parametrize(
    "subject", [pytest.param(one, marks=() if one in BY_HEAD else pytest.mark.slow) for one in SUBJECTS]
)
def test_targets_on_every_kind_of_head(subject: str) -> None:
    model = build_subject(subject, torch.float64)
    image = random_images(model, 1)[0]
    name = "libra_ixg_plus" if model.gives("residual stream") else "input_x_gradient"
    one, four, difference = (maps(model, image, name, target) for target in (1, 4, cl.contrast(4, 1)))
    assert same(difference, four - one)  # linear in the logits
    assert same(difference, maps(model, image, name, lambda logits: logits[:, 4] - logits[:, 1]))
    heads = model.classifiers
    if not heads:
        with pytest.raises(cl.InputError, match="the feature that its head reads is not known"):
            maps(model, image, name, cl.direction(torch.ones(4), "ones"))
    elif all(isinstance(part, nn.Linear) for part in heads):
        row = heads[0].weight.detach()[3]
        both = with_rows(model, lambda rows: rows if rows.shape[1] == 1 else torch.cat([row[None], rows[1:]]))
        assert same(maps(model, image, name, cl.direction(row, "row 3")), maps(both, image, name, 0))


def test_gradients_of_functions() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)[0]

    def entropy(logits: Tensor) -> Tensor:
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)

    m = cl.attribute(model, image, "input_x_gradient", entropy)
    pixels = image[None].clone().requires_grad_()
    entropy(model(pixels)).sum().backward()
    assert pixels.grad is not None
    assert same(m.scores, F.avg_pool2d((pixels.grad * image)[0].sum(0)[None], 8, divisor_override=1)[0])
    assert (m.target, m.target_name, m.target_class, m.score) == (entropy, "entropy", None, "attribution to logit")
    with pytest.raises(cl.InputError, match="'a function of the logits' has no gradient"):
        cl.attribute(model, image, "grad_cam", lambda logits: logits.argmax(1).double())


def difference(logits: Tensor, of: int, against: int | None) -> Tensor:
    return logits[..., of] - (logits.mean(-1) if against is None else logits[..., against])


SCORES: dict[str, Callable[[Tensor, int, int | None], Tensor]] = {
    "logit": difference,
    "prob": lambda y, of, against: y.softmax(-1)[..., of] if against is None else difference(y, of, against).sigmoid(),
    "logprob": lambda y, of, against: (
        y.log_softmax(-1)[..., of] if against is None else F.logsigmoid(difference(y, of, against))
    ),
    "sigmoid": lambda y, of, against: difference(y, of, against).sigmoid(),
    "logsigmoid": lambda y, of, against: F.logsigmoid(difference(y, of, against)),
}


@pytest.mark.parametrize("score", SCORES)
def test_scores_of_caap_with_every_target(score: str) -> None:
    """From the logits of every class's map, and, where it can, from the map of another target."""
    model = build("vit", torch.float64)
    image = random_images(model, 1)[0]
    every = cl.caap(model, image, 0)
    assert every.all_scores is not None
    of_class = cl.caap(model, image, 3, score=score)
    for against in (None, 1):
        expected = SCORES[score](every.all_scores, 4, against)
        contrast = cl.contrast(4, against)
        m = cl.caap(model, image, contrast, score=score)
        assert torch.allclose(m.scores, expected, atol=1e-12) and (m.target, m.score) == (contrast, score)
        if "sigmoid" in score:
            with pytest.raises(cl.InputError, match="cannot be computed from caap's scores of all classes"):
                of_class.for_target(contrast)
        else:
            other = of_class.for_target(contrast)
            assert torch.allclose(other.scores, expected, atol=1e-12) and other.target_name == m.target_name
        assert torch.equal(m.for_target(3).scores, of_class.scores)
    direction = cl.direction(model.vit.head.weight[4], "four")
    for target in (direction, lambda logits: logits[:, 4]):
        if score == "logit":
            plus_bias = float(model.vit.head.bias[4].detach()) if target is direction else 0
            found = cl.caap(model, image, target).scores + plus_bias
            assert torch.allclose(found, every.all_scores[..., 4], atol=1e-12)
        else:
            with pytest.raises(cl.InputError, match=f"score='{score}' is a probability, but the target .* has none"):
                cl.caap(model, image, target, score=score)


def test_a_map_is_read_for_other_targets() -> None:
    model = build("vit")
    m = cl.caap(model, random_images(model, 1), 2)
    assert m.all_scores is not None
    spread = m.for_target(lambda logits: logits.amax(1) - logits.amin(1))
    assert torch.equal(spread.scores, m.all_scores.amax(-1) - m.all_scores.amin(-1)) and spread.target_class is None
    with pytest.raises(cl.InputError, match="The direction 'd' is not a class"):
        m.for_target(cl.direction(torch.ones(24), "d"))
    cl.register("of all", lambda model, images, targets: torch.rand(len(images), 4, 4, 7), score="attribution to prob")
    with pytest.raises(cl.InputError, match="cannot be computed from of all's scores"):
        cl.attribute(model, random_images(model, 1), "of all", cl.contrast(1, 2))


def test_functions_of_users_get_indices_or_what_reads_targets() -> None:
    model = build("vit")
    images = random_images(model, 2)
    given = []

    def mine(model: HookedModel, images: Tensor, targets: object) -> Tensor:
        given.append(targets)
        return torch.zeros(len(images), 4, 4)

    cl.register("mine", mine)
    cl.attribute(model, images, "mine", [1, cl.logit(4)], progress=False)
    cl.attribute(model, images, "mine", [1, cl.contrast(4)], progress=False)
    indices, targets = given
    assert torch.equal(indices, torch.tensor([1, 4]))
    logits = model(images)
    assert torch.equal(targets.value(logits), torch.stack([logits[0, 1], logits[1, 4] - logits[1].mean()]))
    assert targets.value(logits).requires_grad


@pytest.mark.parametrize("indexed", [lambda y, at: y.gather(1, at[:, None]), lambda y, at: y[range(len(y)), at]])
def test_functions_that_take_targets_as_indices_are_told_of_others(indexed: Callable[..., Tensor]) -> None:
    model = build("clip").with_prompts({text: torch.randn(7) for text in "ab"})
    image = random_images(model, 1)[0]
    cl.register("mine", lambda model, images, targets: indexed(model(images), targets).reshape(-1, 1, 1))
    m = cl.attribute(model, image, "mine", cl.logit("b"))
    assert torch.allclose(m.scores, model(image)[:, 1], atol=1e-5)
    assert m.plot().axes[-1].get_ylabel() == "attribution to logit"
    with pytest.raises(cl.InputError, match=r"'mine' fails where .* but b against the mean .* cl.logit\(...\) of"):
        cl.attribute(model, image, "mine", "b")


def test_maps_keep_their_target_in_files(tmp_path: Path) -> None:
    model = build("vit")
    image = random_images(model, 1)[0]
    direction = cl.direction(torch.linspace(-1, 1, 24), "slope")
    kinds = {
        "class 3": 3,
        "class 3 rather than class 1": cl.contrast(3, 1),
        "class 3 against the mean of all classes": cl.contrast(3),
        "slope": direction,
        "a function of the logits": lambda logits: logits[:, 3],
    }
    for name, target in kinds.items():
        m = cl.attribute(model, image, "ixg_plus", target)
        saved = cl.AttributionMap.load(m.save(tmp_path / "map.safetensors"))
        assert saved.target_name == m.target_name == name and saved.target_class == m.target_class
        assert name in repr(m) and name in m.plot().axes[1].get_title().replace("\n", " ")
        if name == "a function of the logits":
            with pytest.raises(cl.InputError, match="'<lambda>', which files do not hold: pass it again, target="):
                map_targets(model, saved)
            continue
        assert saved.target == target if target is not direction else torch.equal(saved.target.vector, direction.vector)
        running, targets = map_targets(model, saved)
        again = cl.attribute(model, image, "ixg_plus", saved.target)
        assert torch.equal(again.scores, m.scores)
        with torch.no_grad():
            expected = cl.attribute(running, image, "simple_insertion", targets[0].given, blank=image).scores
            assert torch.allclose(targets.value(running(image[None])), expected[0, 0], atol=1e-5)


def test_captions_say_any_class_where_maps_are_of_any() -> None:
    model = build("vit")
    m = cl.attribute(model, random_images(model, 1), "rollout", 3)
    assert (m.target, m.target_name, m.caption) == (3, "class 3", "any class")
    assert "for any class," in repr(m)
    assert m.plot().axes[1].get_title() == "rollout for any class"


def test_completeness_of_any_target() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    targets = [cl.contrast(1, 2), cl.contrast(1), cl.direction(model.vit.head.weight[0], "row")]
    with cl.libragrad(model):
        assert cl.completeness_error(model, images, targets, progress=False).max() < 1e-6
