"""HookedCNN: timm's ResNets, DenseNets and VGGs with hook points, and loading them by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.cnns import SMALL, small_cnn

from caap_lab import HookedCNN, HookedViT, InputError, Patch, Preprocessing, load_model, sweep  # isort: skip
import timm

from caap_lab.activations.record import record
from caap_lab.errors import CheckpointError
from caap_lab.models import load
from caap_lab.models.checkpoint import as_timm_cnn, count_classes, read_state_dict
from caap_lab.models.load import list_models

BLOCKS = {"resnet18": 8, "resnet26d": 8, "resnet50": 16, "densenet": 9, "densenet_deep": 7, "vgg": 7, "vgg_bn": 7}


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_timms_own(name: str) -> None:
    model = small_cnn(name)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model.cnn(images))
    assert model.n_classes == 7 and model.n_layers == BLOCKS[name]
    assert repr(model).startswith(f"HookedCNN({name}: {BLOCKS[name]} blocks, grid 4 x 4 of 16 px cells, 7 classes")


@pytest.mark.parametrize("name", SMALL)
def test_every_hook_point_is_read_and_moves_the_output(name: str) -> None:
    model = small_cnn(name)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, cache = model.run_with_cache(images)
    blocks = [f"blocks.{i}.hook_resid_post" for i in range(BLOCKS[name])]
    assert list(cache) == ["hook_embed", *blocks, "hook_pooled", "hook_logits"] and set(cache) == set(model.hook_dict)
    kept: dict[str, Tensor] = {}

    def copy(x: Tensor, hook: object) -> None:
        kept[hook.name] = x.clone()

    with torch.no_grad():
        model.run_with_hooks(images, fwd_hooks=[(hook, copy) for hook in model.hook_dict])
    assert all(torch.equal(cache[hook], kept[hook]) for hook in cache)  # nothing behind them has changed them in place
    for hook in model.hook_dict:
        with torch.no_grad():
            edited = model.run_with_hooks(images, fwd_hooks=[(hook, lambda x, hook: x * 1.5 + 0.1)])
        assert not torch.allclose(edited, plain)
    assert not model.has_hooks()
    with pytest.raises(InputError, match=r"no hook point named .blocks\.19"):
        model.run_with_hooks(images, fwd_hooks=[("blocks.19.hook_resid_post", lambda x, hook: x)])
    assert [site.hook for site in model.find("resid_post", [0, 6])] == [blocks[0], blocks[6]]


def test_blocks_are_what_they_are_said_to_be() -> None:
    images = torch.randn(1, 3, 64, 64)
    seen: dict[str, Tensor] = {}

    def read(model: HookedCNN, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
        seen.clear()
        handles = [
            module.register_forward_hook(lambda m, i, output, name=name: seen.update({name: output.clone()}))
            for name, module in modules.items()
        ]
        with torch.no_grad():
            model.cnn(images)
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            return model.run_with_cache(images)[1]

    densenet = small_cnn("densenet")
    features = densenet.cnn.features
    cache = read(densenet, {"block": features.denseblock2, "stem": features.pool0, "norm": features.norm5})
    assert torch.equal(cache["hook_embed"], seen["stem"])
    assert torch.equal(cache["blocks.4.hook_resid_post"], seen["block"])
    assert torch.equal(cache["blocks.8.hook_resid_post"], seen["norm"])
    vgg = small_cnn("vgg_bn")
    features = vgg.cnn.features
    cache = read(vgg, {"first": features[2], "second": features[6], "last": features[-2]})
    assert torch.equal(cache["hook_embed"], seen["first"])
    assert torch.equal(cache["blocks.0.hook_resid_post"], seen["second"])
    assert torch.equal(cache["blocks.6.hook_resid_post"], seen["last"])


def test_torch_hooks_that_would_not_run_are_refused() -> None:
    images = torch.randn(1, 3, 64, 64)
    for name, holder in (("resnet18", "layer2"), ("densenet", "features.denseblock1"), ("vgg", "features")):
        model = small_cnn(name)
        handle = model.cnn.get_submodule(holder).register_forward_hook(lambda *_: None)
        with pytest.raises(InputError, match=rf"model\.cnn\.{holder} would not run"):
            model(images)
        handle.remove()
        model(images)
    model = small_cnn("resnet18")
    seen = []
    model.cnn.layer2[0].register_forward_hook(lambda *_: seen.append(1))
    model(images)
    assert seen == [1]


def test_a_module_put_into_the_timm_model_counts() -> None:
    model = small_cnn("resnet18")
    images = torch.randn(1, 3, 64, 64)
    model.cnn.fc = nn.Linear(32, 7)
    with torch.no_grad():
        assert torch.equal(model(images), model.cnn(images))


def test_other_architectures_are_refused() -> None:
    with pytest.raises(InputError, match="wraps timm's ResNet, DenseNet and VGG, not ConvNeXt"):
        HookedCNN(timm.create_model("convnext_atto"))
    with pytest.raises(InputError, match=r"ResNet is a CNN, which HookedViT does not support.* HookedCNN"):
        HookedViT(timm.create_model("resnet18"))
    with pytest.raises(InputError, match="no pooling"):
        HookedCNN(timm.create_model("resnet18", global_pool="", num_classes=0))
    features = HookedCNN(timm.create_model("resnet18", num_classes=0))
    assert features.n_classes == 512
    with pytest.raises(InputError, match=r"no classifier, so it has no targets\. Load it with a checkpoint"):
        features.target(0)


def test_grids() -> None:
    def of(name: str, size: tuple[int, int] = (224, 224), grid: tuple[int, int] | None = None) -> tuple[int, int]:
        with torch.device("meta"):
            cnn = timm.create_model(name)
        return HookedCNN(cnn, grid=grid, preprocessing=Preprocessing(size, (0.5,) * 3, (0.5,) * 3)).grid

    assert [of(name) for name in ("resnet18", "resnet50", "densenet161", "vgg16", "vgg16_bn")] == [(14, 14)] * 5
    assert of("resnet18", (256, 320)) == (16, 20) and of("resnet18", grid=(7, 28)) == (7, 28)
    assert load_model("demo-cnn").grid == (8, 8) and load_model("demo-cnn").patch_size == (8, 8)
    with pytest.raises(InputError, match="100 x 100 pixels are not a whole number of resnet18's cells of 16 x 16"):
        of("resnet18", (100, 100))
    assert of("resnet18", (100, 100), (10, 10)) == (10, 10)
    with pytest.raises(InputError, match=r"grid=\(9, 14\) does not divide images of 224 x 224"):
        of("resnet18", grid=(9, 14))
    with pytest.raises(InputError, match="16 x 16 pixels are too small for vgg16"):
        of("vgg16", (16, 16))


def test_what_is_for_vision_transformers_says_so() -> None:
    model = load_model("demo-cnn")
    image = torch.zeros(3, 64, 64)
    patch = Patch("resid_post", layers=0, source=image)
    for call in (
        lambda: record(model, image, "resid_post"),
        lambda: sweep(model, image, lambda layer: patch, over={"layer": [0]}, metric=0),
    ):
        with pytest.raises(InputError, match="works on Vision Transformers; demo-cnn is a CNN"):
            call()
    with pytest.raises(InputError, match="demo-cnn is a CNN and keeps its own head"):
        load_model("demo-cnn", head=__file__)


def test_demo_cnn_reads_other_image_sizes_and_formats() -> None:
    model = load_model("demo-cnn", image_size=96, dtype="bfloat16")
    assert model.preprocessing.image_size == (96, 96) and model.dtype == torch.bfloat16
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 10)
    assert model.target("7") == 7
    assert model.fingerprint == load_model("demo-cnn", dtype="bfloat16").fingerprint


# -- loading by name --------------------------------------------------------------------------------------------------


def test_a_cnn_loads_by_name_strictly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cnn = timm.create_model("test_resnet", num_classes=5).eval()
    save_file(cnn.state_dict(), tmp_path / "model.safetensors")
    model = load_model("test_resnet", checkpoint=tmp_path / "model.safetensors", image_size=96, mean=(0.1, 0.2, 0.3))
    assert isinstance(model, HookedCNN) and model.n_classes == 5 and model.grid == (6, 6)
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(images), cnn(images))
    state = cnn.state_dict()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"part.safetensors: .*\n.*1 missing: layer1.0.conv1.weight"):
        load_model("test_resnet", checkpoint=tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="does not fit resnet18"):
        load_model("resnet18", checkpoint=tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet17"}, "no model named 'resnet17'. Nearest: .*resnet1"),
        ({"name": "vgg16.mine"}, "Known: vgg16.tv_in1k"),
        ({"name": "convnext_atto"}, "convnext_atto is not supported.* without a stream of tokens"),
        ({"image_size": 100}, "not a whole number of resnet18's cells"),
        ({"head": __file__}, "resnet18 is a CNN and keeps its own head"),
    ],
)
def test_bad_arguments_are_refused_before_weights_are_read(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(load, "read_state_dict", lambda path: pytest.fail("weights were read"))
    monkeypatch.setattr(load, "fetch_weights", lambda *arguments: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=message):
        load_model(**{"name": "resnet18", "checkpoint": __file__, **change})


def test_torchvisions_names_are_known(tmp_path: Path) -> None:
    with torch.device("meta"):
        vgg, densenet = timm.create_model("vgg11"), timm.create_model("densenet121")
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
    old = {}
    for name, value in vgg.state_dict().items():
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        old[name] = value.flatten(1) if name.startswith(("classifier.0.w", "classifier.3.w")) else value
    state = as_timm_cnn(vgg, old)
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in vgg.state_dict().items()}
    assert count_classes(state) == 1000
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.") if "denselayer" in name else name: value
        for name, value in densenet.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state = as_timm_cnn(densenet, old)
    assert set(state) == set(densenet.state_dict()) and count_classes(state) == 1000
    damaged = {"classifier.0.weight": torch.zeros(7, 5)}
    with pytest.raises(CheckpointError, match="does not fit vgg11"):
        as_timm_cnn(vgg, damaged)
    save_file({"fc.weight": torch.zeros(3, 8)}, tmp_path / "fc.safetensors")
    assert count_classes(read_state_dict(tmp_path / "fc.safetensors")) == 3


def test_cnns_are_listed() -> None:
    names = list_models()
    assert {"resnet18", "resnet50", "densenet161", "vgg16", "vgg16_bn"} <= set(names)
    assert "resnet18.a1_in1k" in list_models("resnet18.*")


@pytest.mark.slow
def test_every_listed_cnn_can_be_wrapped() -> None:
    for name in timm.list_models(module=["resnet", "densenet", "vgg"]):
        with torch.device("meta"):
            model = HookedCNN(timm.create_model(name))
        assert model.grid[0] * 16 == model.image_size[0]


def test_what_only_vits_have_is_said() -> None:
    model = small_cnn("resnet18")
    assert not hasattr(model, "record") and not hasattr(model, "nothing")
    with pytest.raises(AttributeError, match=r"no attribute 'record': model\.record works on Vision T.*is a CNN\.$"):
        model.record  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        model.nothing  # noqa: B018
