"""HookedCNN: timm's ResNets with hook points."""

import pytest
import torch

from caap_lab import HookedCNN, HookedViT, InputError, Patch, Preprocessing, caap, load_model, sweep  # isort: skip
import timm

from caap_lab.store.record import record


def small_resnet(name: str = "resnet18") -> HookedCNN:
    torch.manual_seed(0)
    cnn = timm.create_model(name, channels=(16, 16, 24, 32), num_classes=7)
    for module in cnn.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if trained: every statistic matters
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return HookedCNN(cnn, preprocessing=Preprocessing((64, 64), (0.5,) * 3, (0.5,) * 3))


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "resnet50"])
def test_logits_are_timms_own(name):
    model = small_resnet(name)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model.cnn(images))
    assert model.n_classes == 7 and model.n_layers == {"resnet18": 8, "resnet26d": 8, "resnet50": 16}[name]
    assert repr(model).startswith(f"HookedCNN({name}: {model.n_layers} residual blocks, 7 classes")


def test_every_hook_point_is_read_and_moves_the_output():
    model = small_resnet()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, cache = model.run_with_cache(images)
    assert set(cache) == set(model.hook_dict)
    assert set(cache) == {f"blocks.{i}.hook_resid_post" for i in range(8)} | {
        "hook_embed",
        "hook_pooled",
        "hook_logits",
    }
    assert cache["blocks.7.hook_resid_post"].shape == (1, 32, 2, 2)
    for name in model.hook_dict:
        with torch.no_grad():
            edited = model.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: x * 1.5 + 0.1)])
        assert not torch.allclose(edited, plain)
    assert not model.has_hooks()
    with pytest.raises(InputError, match=r"no hook point named .blocks\.9"):
        model.run_with_hooks(images, fwd_hooks=[("blocks.9.hook_resid_post", lambda x, hook: x)])
    assert [site.hook for site in model.find("resid_post", [0, 7])] == [
        "blocks.0.hook_resid_post",
        "blocks.7.hook_resid_post",
    ]


def test_torch_hooks_that_would_not_run_are_refused():
    model = small_resnet()
    handle = model.cnn.layer2.register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match=r"model\.cnn\.layer2 would not run"):
        model(torch.randn(1, 3, 64, 64))
    handle.remove()
    seen = []
    model.cnn.layer2[0].register_forward_hook(lambda *_: seen.append(1))
    model(torch.randn(1, 3, 64, 64))
    assert seen == [1]


def test_only_resnets_are_wrapped():
    with pytest.raises(InputError, match="timm's ResNet, not DenseNet"):
        HookedCNN(timm.create_model("densenet121"))
    with pytest.raises(InputError, match="ResNet is not supported"):
        HookedViT(timm.create_model("resnet18"))


def test_what_is_for_vision_transformers_says_so():
    model = load_model("demo-cnn")
    image = torch.zeros(3, 64, 64)
    patch = Patch("resid_post", layers=0, tokens="all", source=image)
    for call in (
        lambda: caap(model, image),
        lambda: record(model, image, "resid_post"),
        lambda: sweep(model, image, lambda layer: patch, over={"layer": [0]}, metric=0),
    ):
        with pytest.raises(InputError, match="works on Vision Transformers; demo-cnn is a CNN"):
            call()
    with pytest.raises(InputError, match="demo-cnn is a CNN and keeps its own head"):
        load_model("demo-cnn", head=__file__)


def test_demo_cnn_reads_other_image_sizes_and_formats():
    model = load_model("demo-cnn", image_size=96, dtype="bfloat16")
    assert model.preprocessing.image_size == (96, 96) and model.dtype == torch.bfloat16
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 10)
    assert model.target("7") == 7
    assert model.fingerprint == load_model("demo-cnn", dtype="bfloat16").fingerprint
