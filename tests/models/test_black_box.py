"""BlackBoxModel: any image classifier under the methods that need no tokens."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import caap_lab as cl
from caap_lab import BlackBoxModel, InputError
from caap_lab.attribution.registry import METHODS
from helpers.black_boxes import SMALL, PlainNet, small_black_box
from helpers.models import build, random_images, randomise, timm_model

RUN_ON_IT = ("grad_cam", "simple_insertion", "simple_deletion", "input_x_gradient", "integrated_gradients")
RUN_ON_IT += ("smoothgrad", "grad_cam_plus_plus", "score_cam", "rise", "occlusion", "shapley")


class Wrapped(nn.Module):
    """PlainNet, with something done to its logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net = randomise(PlainNet)  # type: ignore[arg-type]
        self.change = change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.net(images))


def wrapped(module: nn.Module, **options: Any) -> BlackBoxModel:
    return BlackBoxModel(module, **{"grid": (3, 4), "image_size": (24, 32), **options})


@pytest.fixture(scope="module")
def model() -> BlackBoxModel:
    return small_black_box()


def test_logits_are_the_modules_own(model: BlackBoxModel) -> None:
    images = random_images(model, 2)
    with torch.no_grad():
        assert torch.equal(model(images), model.black_box(images))
    assert (model.grid, model.patch_size, model.image_size, model.n_classes) == ((3, 4), (8, 8), (24, 32), 7)
    assert repr(model) == ("BlackBoxModel(plain_net: grid 3 x 4 of 8 x 8 px cells, 7 classes, torch.float32, cpu)")
    assert model.black_box.name == "PlainNet's own"
    assert not model.training and not model.has_hooks()


def test_both_hook_points_are_read_and_move_the_output(model: BlackBoxModel) -> None:
    images = random_images(model, 1)
    with torch.no_grad():
        plain, cache = model.run_with_cache(images)
        assert {name: tuple(x.shape) for name, x in cache.items()} == {
            "hook_input": (1, 3, 24, 32),
            "hook_logits": (1, 7),
        }
        for name in cache:
            edited = model.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: 2 * x + 1)])
            assert not torch.allclose(edited, plain), name
    with pytest.raises(InputError, match="no hook point"):
        model.run_with_hooks(images, fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: x)])


def test_the_fingerprint_is_of_weights_and_structure(model: BlackBoxModel) -> None:
    other = copy.deepcopy(model)
    assert other.fingerprint == model.fingerprint
    assert wrapped(other.black_box, grid=(6, 8)).fingerprint == model.fingerprint  # maps of both may be compared
    other.black_box.features[2] = nn.LeakyReLU()
    changed = other.fingerprint
    other.black_box.head.weight.data[0, 0] += 1
    assert len({model.fingerprint, changed, other.fingerprint}) == 3


def test_a_head_put_in_later_counts(model: BlackBoxModel) -> None:
    other = copy.deepcopy(model)
    other.black_box.head = nn.Linear(12, 5).eval()
    assert other.n_classes == 5 and other.target(4) == 4
    assert cl.attribute(other, random_images(other, 1), "grad_cam", 4).target == 4


# --- what a module may give ---


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: SimpleNamespace(logits=logits, loss=None),
        lambda logits: {"logits": logits, "features": logits},
        lambda logits: {"scores": logits},
        lambda logits: (logits, logits[:, :, None]),
        lambda logits: [logits],
    ],
)
def test_logits_are_found_where_they_cannot_be_mistaken(change: Callable[[Tensor], Any]) -> None:
    module = Wrapped(change)
    made = wrapped(module)
    images = random_images(made, 2)
    with torch.no_grad():
        assert torch.equal(made(images), module.net(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda logits: (logits, logits),
            r"returns tuple of \[2, 7\], \[2, 7\] for 2 images; expected logits \[batch, class\]",
        ),
        (lambda logits: {"a": logits, "b": logits}, r"returns dict with a: \[2, 7\], b: \[2, 7\] for 2 images"),
        (lambda logits: logits[:, 0], r"returns \[2\] .* expected logits .*, \[batch, 1\] for one output"),
        (lambda logits: logits[..., None, None], r"returns \[2, 7, 1, 1\] for 2 images"),
        (lambda logits: logits.argmax(1, keepdim=True), r"returns torch.int64; expected floating-point logits"),
        (lambda logits: SimpleNamespace(), r"returns SimpleNamespace for 2 images"),
        (lambda logits: logits.softmax(1), "returns probabilities, which sum to 1"),
        (lambda logits: logits - logits.mean(0), "depend on the rest of the batch"),
        (lambda logits: logits + 100 * torch.rand_like(logits), "draws random numbers in evaluation mode"),
        (lambda logits: logits * float("nan"), "returns NaN or infinity on random images"),
    ],
)
def test_what_gives_no_logits_is_refused(change: Callable[[Tensor], Any], message: str) -> None:
    with torch.random.fork_rng(), pytest.raises(InputError, match=message):
        wrapped(Wrapped(change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (5, 4)}, r"grid=\(5, 4\) does not divide images of 24 x 32 .*: 5 rows do not divide .*; 4 or 6 do"),
        ({"grid": (3, 5)}, r"5 columns do not divide 32 pixels; 4 or 8 do"),
        ({"grid": 14}, r"grid=14 is not a pair \(rows, columns\)"),
        ({"grid": (3, 0)}, r"grid=\(3, 0\) is not a pair"),
        ({"grid": (3.0, 4)}, r"is not a pair \(rows, columns\)"),
        ({"image_size": (24,)}, r"image_size=\(24,\) is not a number of pixels or a \(height, width\)"),
        ({"image_size": "large"}, "image_size='large' is not a number of pixels"),
        ({"class_names": ["cat"]}, "1 class names were given for a head of 7 classes"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrapped(PlainNet(), **options)


def test_modules_that_do_not_run() -> None:
    with pytest.raises(InputError, match=r"Linear does not run on images \[2, 3, 24, 32\] .*\. Give its image size"):
        wrapped(nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"wraps a torch\.nn\.Module, not function; call a function in the forward"):
        wrapped(lambda images: images)  # type: ignore[arg-type]
    model = wrapped(PlainNet())
    with pytest.raises(InputError, match="training mode"):
        cl.attribute(model.train(), torch.zeros(3, 24, 32), "rise", 0)


def test_a_module_without_weights() -> None:
    model = wrapped(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()))
    assert (model.dtype, model.device.type, model.n_classes) == (torch.float32, "cpu", 12)
    assert cl.attribute(model, torch.rand(3, 24, 32), "occlusion", 3).scores.isfinite().all()


def test_where_preprocessing_comes_from() -> None:
    vit = timm_model("vit_base_patch16_224", img_size=(40, 24))
    own = BlackBoxModel(vit, grid=(5, 3))
    assert own.preprocessing == cl.HookedViT(vit).preprocessing and own.model_name == "vit_base_patch16_224"
    assert wrapped(PlainNet()).preprocessing.mean == (0.485, 0.456, 0.406)
    given = cl.Preprocessing((24, 32), (0.1,) * 3, (0.2,) * 3)
    assert BlackBoxModel(PlainNet(), grid=(3, 4), preprocessing=given).preprocessing == given
    assert wrapped(PlainNet(), image_size=(48, 32), preprocessing=given).image_size == (48, 32)


# --- methods ---


@pytest.mark.parametrize("name", ["plain_net", "swin", "naflexvit"])
def test_which_methods_run_is_what_the_model_gives(name: str) -> None:
    model = small_black_box(name)
    able = [method for method in METHODS if METHODS[method].runs_on(model)]
    maps = () if name != "naflexvit" else ("grad_cam", "grad_cam_plus_plus", "score_cam")
    assert set(able) == set(RUN_ON_IT) - set(maps)
    for method in ("caap", "rollout", "ixg_plus"):
        with pytest.raises(
            InputError, match=f"{method} works on .*; {name} is a black box; methods that run on it are "
        ):
            cl.attribute(model, random_images(model, 1), method, 0)
    if maps:
        with pytest.raises(InputError, match=rf"grad_cam needs feature maps, but naflexvit has none; .* are {able[0]}"):
            cl.attribute(model, random_images(model, 1), "grad_cam", 0)
    with pytest.raises(InputError, match=r"A sweep of CAAP works on Vision Transformers; .* is a black box"):
        cl.sweep_scores(model, random_images(model, 1))  # type: ignore[arg-type]


def test_methods_of_your_own_run_where_they_read_pixels(model: BlackBoxModel) -> None:
    def brightness(model: Any, images: Tensor, targets: Tensor) -> Tensor:
        return images.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2))

    try:
        cl.register("brightness", brightness, reads="pixels")
        assert cl.attribute(model, random_images(model, 1), "brightness", 0).grid == (3, 4)
        assert cl.methods().loc["brightness", "models"] == ("vit", "cnn", "mixer", "black_box")
        with pytest.raises(InputError, match="reads='colours' is not known; use one of pixels, feature maps"):
            cl.register("brightness", brightness, reads="colours")
    finally:
        del METHODS["brightness"]


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (torch.no_grad()(PlainNet.forward), "its forward pass keeps no graph"),
        (
            lambda self, images: PlainNet.forward(self, images.detach()),
            "its forward pass detaches the logits",
        ),
        (lambda self, images: torch.from_numpy(PlainNet.forward(self, images).numpy()), "Can't call numpy"),
    ],
)
def test_a_model_without_gradients_has_the_methods_that_take_none(forward: Any, reason: str) -> None:
    kind = type("Opaque", (PlainNet,), {"forward": forward})
    model = wrapped(kind())
    image = random_images(model, 1)
    assert [name for name in RUN_ON_IT if METHODS[name].runs_on(model)] == [
        name for name in RUN_ON_IT if METHODS[name].backwards.text == "0"
    ]
    with pytest.raises(InputError, match=rf"grad_cam needs gradients, but Opaque has none \({reason}.*are simple_in"):
        cl.attribute(model, image, "grad_cam", 0)
    assert cl.attribute(model, image, "score_cam", 0).scores.isfinite().all()


@pytest.mark.parametrize(
    ("method", "oracle"), [("grad_cam", GradCAM), ("grad_cam_plus_plus", GradCAMPlusPlus), ("score_cam", ScoreCAM)]
)
@pytest.mark.parametrize("layer", ["features", "features.0", "step"])
def test_agrees_with_pytorch_grad_cam(method: str, oracle: Any, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At layers behind which a ReLU works in place, too: that must not change what was read."""
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    monkeypatch.setattr("tqdm.tqdm", lambda steps: steps)
    model = small_black_box(dtype=torch.float64)
    images = random_images(model, 2)
    net: Any = copy.deepcopy(model.black_box)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with oracle(model=net, target_layers=[net.get_submodule(layer)]) as cam:
        expected = cam(images, [ClassifierOutputTarget(target) for target in (3, 0)])
    maps = cl.attribute(model, images, method, [3, 0], progress=False, layer=layer)
    assert maps[0].settings["layer"] == layer
    found = scale_cam_image(scale_cam_image(torch.stack([m.scores for m in maps]).numpy(), (32, 24)))
    assert np.count_nonzero(expected) > 0
    assert np.abs(found - expected).max() < 1e-4


def test_cam_of_maps_with_their_channels_last() -> None:
    model = small_black_box("swin", torch.float64)
    (image,) = random_images(model, 1)
    swin: Any = model.black_box
    a = swin.layers[0](swin.patch_embed(image[None])).detach().requires_grad_()  # [1, row, col, channel]
    (g,) = torch.autograd.grad(swin.head(swin.norm(swin.layers[1](a)))[0, 3], a)
    expected = (a * g.mean((1, 2), keepdim=True)).sum(-1).relu()[0]
    found = cl.attribute(model, image, "grad_cam", 3, layer="layers.0").scores
    assert expected.shape == found.shape == (8, 8)
    assert (found.double() - expected).abs().max() < 1e-6 * expected.max()


def test_the_last_maps_are_taken_by_default() -> None:
    expected = {
        "plain_net": "step",
        "efficientnet": "bn2",
        "convnext": "stages",
        "swin": "norm",
        "hiera": "patch_embed.proj",
        "maxvit": "norm",
        "resmlp": "stem.proj",
        "naflexvit": None,
    }
    assert {name: small_black_box(name).probed.last_maps for name in SMALL} == expected
    explicit = build("average_pool")
    for block in explicit.vit.blocks:
        block.attn.fused_attn = False  # attention [batch, head, 16, 16] has the proportion of the image
    assert BlackBoxModel(explicit.vit, grid=(4, 4)).probed.last_maps == "patch_embed.proj"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "featurs.3",
            r"plain_net has no layer 'featurs.3'. Nearest: features.3.* Layers with maps: features.2.*others",
        ),
        (
            "head",
            r"The layer 'head' of plain_net returns \[2, 7\] for two images, which are not maps \[batch, channel, row",
        ),
        ("twice", r"The layer 'twice' of plain_net runs 2 times in a forward pass"),
        ("unused", r"The layer 'unused' of plain_net does not run when the model does. Layers with maps: features.2"),
        (True, "plain_net has no layer 'True'"),
    ],
)
def test_layers_without_maps_are_refused(layer: Any, message: str) -> None:
    class Odd(PlainNet):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.twice = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(self.twice(self.twice(images)))

    model = wrapped(Odd(), name="plain_net")
    with pytest.raises(InputError, match=message):
        cl.attribute(model, random_images(model, 1), "score_cam", 0, layer=layer)


def test_a_sequential_has_numbers_for_names() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = wrapped(net)
    image = random_images(model, 1)
    default, named = (cl.attribute(model, image, method, 0) for method in ("grad_cam", "grad_cam:layer=1"))
    assert torch.equal(default.scores, named.scores) and default.settings == named.settings == {"layer": "1"}
    assert default.grid == (22, 30)


# --- around it ---


def test_metrics_and_files(model: BlackBoxModel, tmp_path: Path) -> None:
    image = random_images(model, 1)
    m = cl.attribute(model, image, "occlusion", 2)
    curves = cl.insertion_deletion(model, image, m, step="patch")
    assert np.isfinite(curves.insdel) and len(curves.shares) == 13
    mask = np.zeros((24, 32), bool)
    mask[:8] = True
    assert 0 <= cl.localisation(m, mask).aupr1 <= 1
    saved = cl.AttributionMap.load(m.save(tmp_path / "map.safetensors"))
    assert torch.equal(saved.scores, m.scores) and saved.fingerprint == model.fingerprint


def test_a_benchmark_tells_grids_apart(tmp_path: Path) -> None:
    photos = cl.open_images("demo:single").sample(1, 0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    for grid in ((4, 4), (8, 8)):
        model = BlackBoxModel(net, grid=grid, image_size=64)
        methods = ["occlusion", "grad_cam:layer=1"]
        result = cl.benchmark(model, methods, photos, out=tmp_path / "run", protocol="rise-28", progress=False)
        rows = result.to_dataframe().set_index("method")
        assert rows["insertion"].notna().all() and len(rows) == 2
        assert list(rows.loc["occlusion", "grid"]) == list(grid)
        assert list(rows.loc["grad_cam:layer=1", "grid"]) == [15, 15]
