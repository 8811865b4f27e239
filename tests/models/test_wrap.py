"""`cl.wrap`: any model in memory gives a hooked model that computes the same, or an error that says what to pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils import ModelEma, ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

import caap_lab as cl
from caap_lab import BlackBoxModel, HookedCNN, HookedMixer, HookedViT, InputError
from helpers.cnns import small_cnn
from helpers.mixers import small_mixer
from helpers.models import random_images, randomise, timm_model

compiles = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, from its compiler


def vit(**switches: Any) -> nn.Module:
    return randomise(lambda: timm_model("vit_base_patch16_224", depth=2, **switches)).eval()


class Passes(nn.Module):
    """A wrapper as training frameworks have them: it holds the model, and passes on to it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


class Dict(Passes):
    """One that gives its logits by name."""

    def forward(self, images: Tensor) -> Any:
        return {"logits": self.model(images), "features": images.mean()}


class Scaled(Passes):
    """One that does something itself."""

    def forward(self, images: Tensor) -> Any:
        return self.model(images) / 1.1


class Probe(nn.Module):
    """A backbone with a linear head of one's own."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm = nn.LayerNorm(24)
        self.classifier = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images))


class Normalise(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5) / 0.5


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_timm_models_become_hooked_ones_of_their_kind() -> None:
    body = vit()
    model = cl.wrap(body.train(), class_names=[f"name {index}" for index in range(7)], name="mine")
    assert type(model) is HookedViT and model.vit is body and not body.training
    assert model.model_name == "mine" and model.target("name 3") == 3
    images = random_images(model, 2)
    assert torch.equal(model(images), body(images))
    assert cl.wrap(model) is model

    cnn = small_cnn("resnet18").body
    hooked = cl.wrap(cnn, grid=(2, 2), image_size=64)
    assert type(hooked) is HookedCNN and hooked.grid == (2, 2) and hooked.image_size == (64, 64)
    mixer = small_mixer().body
    assert type(cl.wrap(mixer)) is HookedMixer and cl.wrap(mixer).body is mixer


def test_device_format_head_size_and_preprocessing() -> None:
    body = vit(num_classes=0).double()
    head = nn.Linear(24, 3).double()
    seen = cl.Preprocessing((40, 48), (0.1, 0.2, 0.3), (1, 1, 1))
    model = cl.wrap(body, head=head, preprocessing=seen)
    images = random_images(model, 2)
    assert isinstance(model, HookedViT) and model.dtype == torch.float64
    assert model.image_size == (40, 48) and model.grid == (5, 6) and model.preprocessing == seen
    assert model(images).shape == (2, 3) and body.patch_embed.img_size == (32, 32)
    own = cl.wrap(body, head=head)
    images = random_images(own, 2)
    assert torch.equal(own(images), head(body(images)))


SHELLS: dict[str, Callable[[nn.Module], Any]] = {
    "DataParallel": DataParallel,
    "averaged by torch": AveragedModel,
    "averaged by timm": ModelEma,
    "averaged by timm, version 3": ModelEmaV3,
    "two of them": lambda model: AveragedModel(DataParallel(model)),
    "a framework's": lambda model: Passes(Passes(model)),
    "logits by name": Dict,
    "Sequential": lambda model: nn.Sequential(model, nn.Dropout(0.5)),
}


@pytest.mark.parametrize("kind", SHELLS)
def test_wrappers_that_only_pass_on_are_taken_off(kind: str) -> None:
    body = vit()
    shell = SHELLS[kind](body)
    model = cl.wrap(shell)
    images = random_images(model, 2)
    assert isinstance(model, HookedViT)
    assert torch.equal(model(images), body(images))
    copied = kind.startswith("averaged") or kind == "two of them"
    assert (model.vit is body) is not copied


@compiles
def test_compiled_models_are_taken_out_without_compiling() -> None:
    def compiled(model: nn.Module) -> nn.Module:
        return torch.compile(model, backend=lambda *_: pytest.fail("it was compiled"))  # type: ignore[return-value]

    body: Any = vit()
    with pytest.raises(InputError, match=r"cl\.wrap unwraps it, or pass model\.module\._orig_mod\."):
        HookedViT(DataParallel(compiled(body)))
    fingerprint = cl.wrap(body).fingerprint
    body.blocks[0].compile(backend="eager")  # in place, which changes no result
    assert cl.wrap(body).fingerprint == fingerprint
    other: Any = vit()
    other.blocks[1] = compiled(other.blocks[1])
    with pytest.raises(
        InputError, match=r"model\.blocks\[1\] is compiled separately.* = model\.blocks\[1\]\._orig_mod"
    ):
        cl.wrap(other)
    for shell in (compiled(body), DataParallel(compiled(body)), Passes(compiled(body))):
        model = cl.wrap(shell)
        assert isinstance(model, HookedViT) and model.vit is body


def test_a_head_of_ones_own_goes_with_the_backbone() -> None:
    probe = Probe(vit(num_classes=0)).eval()
    with pytest.raises(InputError, match=r"cl\.wrap\(model\.backbone, head=model\.classifier\) returns the same"):
        cl.wrap(probe)
    for model in (cl.wrap(probe.backbone, head=probe.classifier), cl.wrap(probe, head=probe.classifier)):
        images = random_images(model, 2)
        assert torch.equal(model(images), probe(images))
    found = cl.attribute(cl.wrap(probe, head=probe.classifier), images[:1], "libra_ixg_plus", 2, progress=False)
    assert isinstance(found, cl.AttributionMap) and found.scores.isfinite().all()
    with pytest.raises(InputError, match=r"cl\.wrap\(model\[0\], head=model\[1:\]\) returns the same outputs"):
        cl.wrap(nn.Sequential(probe.backbone, nn.LayerNorm(24), nn.Linear(24, 5)))


def test_any_other_classifier_becomes_a_black_box_with_a_grid() -> None:
    other = nn.Sequential(Normalise(), vit()).eval()
    model = cl.wrap(other, grid=(2, 4), image_size=32)
    assert isinstance(model, BlackBoxModel) and model.grid == (2, 4)
    images = random_images(model, 1)
    assert torch.equal(model(images), other(images))
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12, num_classes=3)
    assert isinstance(cl.wrap(swin, grid=(4, 4)), BlackBoxModel)


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "normalises": (lambda: nn.Sequential(Normalise(), vit()), r"changes the computation.*cl\.wrap\(model\[1\]\), and"),
    "scales": (lambda: Scaled(vit()), r"outputs are not those of model\.model.*VisionTransformer.*grid=\(14, 14\)"),
    "two models": (
        lambda: nn.ModuleDict({"teacher": vit(), "student": vit()}),
        r"several models: model\.teacher, model\.student\. Pass the one.*cl\.wrap\(model\.teacher\)",
    ),
    "unknown": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()),
        r"Sequential is not supported\. caap_lab works with .*grid=\(14, 14\).*It holds model\[0\], model\[1\]\.",
    ),
    "hooked shell": (
        lambda: _with_hook(DataParallel(vit())),
        r"torch hook on DataParallel would not run.*cl\.wrap\(model\.module\)",
    ),
    "derived shell": (lambda: _Halves(vit()), r"_Halves is a DataParallel with a forward of its own.*model\.module"),
    "called in another way": (lambda: _CalledTwice(vit()), r"_CalledTwice is a DataParallel with a forward of its own"),
    "windows": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12),
        r"SwinTransformer is not supported: its attention stays within windows.*grid=\(14, 14\)",
    ),
    "no weights": (lambda: vit().to("meta"), r"VisionTransformer are not loaded \(device 'meta'\)\. Load them first"),
    "a name": (lambda: "vit_base_patch16_224", "cl.load_model loads models by name"),
    "weights": (lambda: vit().state_dict(), r"weights or settings.*cl\.load_model\(name, checkpoint="),
    "an object": (
        lambda: _Trainer(vit()),
        r"is not a torch\.nn\.Module but holds one: cl\.wrap\(model\.model\)",
    ),
    "a pair": (lambda: (vit(), None), r"one model, not a tuple: cl\.wrap\(model\[0\]\)"),
    "a function": (lambda: torch.sigmoid, "call a function in the forward of a module"),
}


class _Halves(DataParallel):
    def forward(self, *inputs: Any, **options: Any) -> Any:
        return super().forward(*inputs, **options) / 2


class _CalledTwice(DataParallel):
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return super().__call__(*inputs, **options) + super().__call__(*inputs, **options)


class _Trainer:
    def __init__(self, model: nn.Module) -> None:
        self.model = model


def _with_hook(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: output * 2)
    return module


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_say_what_was_seen_and_what_to_pass(kind: str) -> None:
    make, message = REFUSED[kind]
    given = make()
    training = [part.training for part in given.modules()] if isinstance(given, nn.Module) else []
    with pytest.raises(InputError, match=message):
        cl.wrap(given)
    assert training == ([part.training for part in given.modules()] if isinstance(given, nn.Module) else [])


def test_options_that_do_not_fit_are_refused() -> None:
    model = cl.wrap(vit())
    with pytest.raises(InputError, match=r"already wrapped, so grid=.*cl\.wrap\(model\.body, grid="):
        cl.wrap(model, grid=(4, 4))
    assert cl.wrap(model.body, grid=(4, 4)).kind == "vit"
    with pytest.raises(InputError, match=r"grid=\(2, 2\).*per patch, 4 x 4.*BlackBoxModel"):
        cl.wrap(model.body, grid=(2, 2))
    with pytest.raises(InputError, match="keeps its own head"):
        cl.wrap(small_cnn("resnet18").body, head=nn.Linear(3, 3))
    with pytest.raises(InputError, match=r"preprocessing=Compose is neither a cl\.Preprocessing nor an image"):
        cl.wrap(model.body, preprocessing=timm.data.create_transform(32))
    with pytest.raises(InputError, match="not a whole number of patches"):
        cl.wrap(model.body, image_size=33)


# -- transformers and torchvision --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hugging_face() -> nn.Module:
    """A small random classifier of transformers' class."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )
    return ViTForImageClassification(config).eval()


def test_twins_have_the_names_and_the_preprocessing_of_the_checkpoint(
    hugging_face: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import ViTImageProcessor

    model = cl.wrap(hugging_face)
    assert isinstance(model, HookedViT) and list(model.class_names.names) == ["cat", "dog", "owl"]
    assert "The preprocessing of this ViTForImageClassification is not known" in caplog.text
    caplog.clear()
    images = random_images(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(images), hugging_face(images).logits, rtol=1e-4, atol=1e-5)
    processor = ViTImageProcessor(image_mean=[0.1] * 3, image_std=[0.2] * 3, size={"height": 32, "width": 32})
    assert cl.wrap(hugging_face, preprocessing=processor).preprocessing.mean == (0.1, 0.1, 0.1)
    processor.save_pretrained(tmp_path)
    hugging_face.save_pretrained(tmp_path)
    own = type(hugging_face).from_pretrained(tmp_path)
    for wrapped in (own, DataParallel(own), Passes(own)):
        assert cl.wrap(wrapped).preprocessing.mean == (0.1, 0.1, 0.1)
    assert not caplog.records
    larger = cl.wrap(own, image_size=(48, 32))
    assert larger.grid == (6, 4)
    images = random_images(larger, 1)
    with torch.no_grad():
        expected = hugging_face(images, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(larger(images), expected, rtol=1e-4, atol=1e-5)


def test_a_head_behind_a_hugging_face_model_of_features(hugging_face: Any) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dino = Dinov2Model(Dinov2Config(**sizes))
            self.head = nn.Linear(24, 4)

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.head(self.dino(pixel_values=pixel_values).pooler_output)

    probe = Linear().eval()
    with pytest.raises(InputError, match=r"cl\.wrap\(model\.dino, head=model\.head\) returns the same outputs"):
        cl.wrap(probe)
    model = cl.wrap(probe.dino, head=probe.head)
    images = random_images(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(images), probe(images), rtol=1e-4, atol=1e-5)
