"""A head is measured, not believed: its width, its names, and whether it reads a softmax or sigmoids."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.attribution.map import AttributionMap
from caap_lab.metrics.protocol import PROTOCOLS, curve_protocol
from caap_lab.models.classes import ClassNames
from caap_lab.models.probability import probabilities
from caap_lab.widgets.class_table import class_table
from helpers.cnns import small_cnn
from helpers.mixers import small_mixer
from helpers.models import build, random_images, randomise, timm_model

READS_PROBABILITIES = {
    "mda": {"steps": 2},
    "mutex": {},
    "tis": {"clusters": 4},
    "atman": {},
    "vit_cx": {},
    "rise": {"samples": 20},
}


def head(width: int, kind: str) -> nn.Module:
    """A classifier for three classes, as people put them into timm's models."""
    torch.manual_seed(1)
    return {
        "linear": nn.Linear(width, 3),
        "sequential": nn.Sequential(nn.Dropout(0.5), nn.Linear(width, 8), nn.GELU(), nn.Linear(8, 3)),
        "batch_norm": nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, 3)),
    }[kind]


def replaced(kind: str, model: str, width: int, new: nn.Module) -> tuple[Any, nn.Module]:
    """A hooked model, and the module of timm's whose attribute `new` has become."""
    hooked: Any = {"vit": lambda: build("vit"), "mixer": small_mixer, "cnn": lambda: small_cnn(kind)}[model]()
    body = getattr(hooked, model)
    if kind == "vgg":
        body.head.fc = new
    else:
        setattr(body, {"resnet18": "fc", "densenet": "classifier"}.get(kind, "head"), new)
    return hooked, body


BODIES = [
    ("vit", "vit", 24),
    ("mixer", "mixer", 24),
    ("resnet18", "cnn", 512),
    ("densenet", "cnn", 40),
    ("vgg", "cnn", 32),
]


@pytest.mark.parametrize("kind", ["linear", "sequential", "batch_norm"])
@pytest.mark.parametrize("name, model, _", BODIES)
def test_a_replaced_head_is_measured(name: str, model: str, _: int, kind: str) -> None:
    before, body = replaced(name, model, 0, nn.Identity())
    assert not before.has_classifier, "an Identity gives features"
    width = before.n_classes
    assert len(before.class_names) == width
    with pytest.raises(InputError, match="has no classifier"):
        before.target(0)
    hooked, body = replaced(name, model, width, head(width, kind))
    hooked.eval()  # the head was put in after the model was wrapped
    images = torch.randn(1, 3, *hooked.image_size)
    assert hooked(images).shape == (1, 3)
    assert hooked.n_classes == 3 and hooked.has_classifier and "3 classes" in repr(hooked)
    assert hooked.class_names.names == ("class 0", "class 1", "class 2")
    assert body.num_classes == 7, "the attribute is out of date"
    with pytest.raises(InputError, match="has classes 0 to 2"):
        hooked.target(5)
    wrapped: Any = type(hooked)(body, **({"preprocessing": hooked.preprocessing} if model == "cnn" else {}))
    assert wrapped.n_classes == 3
    method = "input_x_gradient" if model == "mixer" else "caap"
    found = cl.attribute(hooked, images, method, progress=False)
    assert isinstance(found, AttributionMap) and found.target_name == f"class {found.target}"


class Growing(nn.Module):
    """A head that learns classes step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.known = nn.Linear(24, 9), 4
        self.register_buffer("chosen", torch.arange(9))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:, self.chosen[: self.known]]


def test_a_head_that_changes_its_outputs_is_measured_again() -> None:
    model = build("vit")
    model.vit.head = own = Growing().eval()
    assert model.n_classes == len(model.class_names) == 4
    own.known = 6
    assert model.n_classes == len(model.class_names) == model(random_images(model, 1)).shape[1] == 6
    own.chosen.resize_(5)
    assert model.n_classes == 5
    own.forward = own.layer.forward
    assert model.n_classes == 9 and cl.caap(model, random_images(model, 1), 8).target == 8


def test_measuring_leaves_the_head_as_it_is() -> None:
    vit = timm_model("vit_base_patch16_224", num_classes=0)
    vit.head = head(24, "batch_norm").train()
    state = copy.deepcopy(vit.head.state_dict())
    drawn = torch.get_rng_state()
    model = HookedViT(vit)
    vit.head.train()
    assert model.n_classes == 3 and vit.head.training and vit.head[0].training
    assert all(torch.equal(state[key], value) for key, value in vit.head.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())
    assert copy.deepcopy(model).n_classes == 3


def test_names_that_do_not_fit_a_head_are_refused_in_words() -> None:
    model = HookedViT(build("vit").vit, class_names=list("abcdefg"))
    with pytest.raises(InputError, match="2 class names were given for a head of 7 classes"):
        model.class_names = ["a", "b"]
    model.vit.head = nn.Linear(24, 3).eval()
    with pytest.raises(InputError, match="7 class names were given for a head of 3 classes"):
        cl.caap(model, random_images(model, 1))
    model.class_names = ["x", "y", "z"]
    assert cl.caap(model, random_images(model, 1), "y").target == 1
    model.class_names = None
    assert model.class_names.name(2) == "class 2"
    assert ClassNames.for_model(model.vit).names == model.class_names.names


class Squeezed(nn.Linear):
    """A head that drops its axis of classes, as binary classifiers often do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(-1)


@pytest.mark.parametrize(
    "new, message",
    [
        (nn.Linear(30, 3), "cannot read the model's features, 24 values per image"),
        (Squeezed(24, 1), r"returns \[1\] for one image; expected logits \[batch, class\]"),
        (nn.LSTM(24, 3), "returns tuple for one image"),
    ],
)
def test_a_head_that_gives_no_logits_is_refused(new: nn.Module, message: str) -> None:
    vit = build("vit").vit
    vit.head = new
    with pytest.raises(InputError, match=message):
        HookedViT(vit)


def test_heads_of_a_distilled_model_have_to_agree() -> None:
    vit = build("deit_distilled").vit
    vit.head = nn.Linear(24, 1)  # would be added to all seven by broadcasting
    with pytest.raises(InputError, match="head returns 1 scores and its head_dist 7"):
        HookedViT(vit)


# -- one output, and several labels ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def binary() -> HookedViT:
    """A model with one output."""
    return HookedViT(randomise(lambda: timm_model("vit_base_patch16_224", num_classes=1, depth=2)))


@pytest.mark.parametrize("method", READS_PROBABILITIES)
def test_one_output_reads_a_sigmoid_in_every_method(binary: HookedViT, method: str) -> None:
    image = random_images(binary, 1)
    options = READS_PROBABILITIES[method]
    found = cl.attribute(binary, image, method, 0, progress=False, **options)
    assert isinstance(found, AttributionMap)
    assert found.scores.max() > found.scores.min(), "a softmax of one output is always 1"
    assert found.settings["probability"] == "sigmoid"
    with pytest.raises(InputError, match="always 1 for a head with one output"):
        cl.attribute(binary, image, method, 0, progress=False, probability="softmax", **options)


class Doubled(nn.Module):
    """One output z as the two logits (z, 0), whose softmax is z's sigmoid."""

    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: Tensor) -> Tensor:
        logit = self.one(x)
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)


@pytest.mark.parametrize("method", READS_PROBABILITIES)
def test_a_sigmoid_is_the_softmax_of_two_logits(binary: HookedViT, method: str) -> None:
    two = copy.deepcopy(binary)
    two.vit.head = Doubled(two.vit.head).eval()
    image = random_images(binary, 1)
    one, other = (
        cl.attribute(model, image, method, 0, progress=False, **READS_PROBABILITIES[method]) for model in (binary, two)
    )
    assert isinstance(one, AttributionMap) and isinstance(other, AttributionMap)
    assert other.settings["probability"] == "softmax"
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-6)


def test_scores_of_caap_say_that_a_sigmoid_was_read(binary: HookedViT) -> None:
    image = random_images(binary, 1)
    logit, prob, log = (cl.caap(binary, image, 0, score=score) for score in ("logit", "prob", "logprob"))
    assert (prob.score, log.score) == ("sigmoid", "logsigmoid")
    assert torch.equal(prob.scores, logit.scores.sigmoid())
    torch.testing.assert_close(log.scores.exp(), prob.scores)
    several = build("vit")
    image = random_images(several, 1)
    logit, own = (cl.caap(several, image, 2, score=score) for score in ("logit", "sigmoid"))
    assert own.score == "sigmoid" and torch.equal(own.all_scores, logit.all_scores.sigmoid())
    sweep = cl.sweep_scores(binary, random_images(binary, 1), 0)
    assert list(sweep.labels) == ["logit", "prob", "logprob"] and sweep.map(0, "prob").score == "sigmoid"


def test_curves_of_one_output_and_of_several_labels(binary: HookedViT) -> None:
    image = random_images(binary, 1)
    m = cl.caap(binary, image, 0)
    curves = cl.insertion_deletion(binary, image, m, protocol="patches")
    logits = cl.insertion_deletion(binary, image, m, protocol="patches", score="logit")
    for name in ("insertion_curve", "deletion_curve"):
        expected = torch.from_numpy(getattr(logits, name)).float().sigmoid()
        torch.testing.assert_close(torch.from_numpy(getattr(curves, name)).float(), expected)
    assert curves.protocol.probability == "sigmoid" and logits.protocol.probability == "auto"
    top = cl.insertion_deletion(binary, image, m, protocol="patches", score="top1")
    assert (top.insertion_curve == (logits.insertion_curve > 0)).all()
    several = build("vit")
    image = random_images(several, 1)
    m = cl.caap(several, image, 2)
    own = cl.insertion_deletion(several, image, m, protocol="patches", probability="sigmoid")
    logits = cl.insertion_deletion(several, image, m, protocol="patches", score="logit")
    expected = torch.from_numpy(logits.insertion_curve).float().sigmoid()
    torch.testing.assert_close(torch.from_numpy(own.insertion_curve).float(), expected)
    with pytest.raises(InputError, match="always 1"):
        cl.insertion_deletion(
            binary,
            random_images(binary, 1),
            cl.caap(binary, random_images(binary, 1), 0),
            protocol="patches",
            probability="softmax",
        )


def test_the_protocols_keep_their_keys() -> None:
    assert all("probability" not in protocol.to_dict() for protocol in PROTOCOLS.values())
    changed = curve_protocol("rise", probability="sigmoid")
    assert changed.to_dict()["probability"] == "sigmoid" and changed.name == "rise with probability=sigmoid"
    with pytest.raises(InputError, match="probability='sigmoidal' is not known"):
        curve_protocol("rise", probability="sigmoidal")


def test_tables_of_one_output_show_its_sigmoid(binary: HookedViT) -> None:
    assert "50.0%" in class_table("a patch", torch.zeros(1), {}, 0, binary)
    assert probabilities(torch.zeros(1, 1)).item() == 0.5
