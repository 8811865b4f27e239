"""CAAP and the other methods on CNNs: plain definitions, identities, and what all of them must keep."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.engine.blanks import blank_image
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from helpers.cnns import SMALL, THREE, small_cnn

QUICK: dict[str, dict[str, Any]] = {
    "rise": {"samples": 20},
    "smoothgrad": {"samples": 3},
    "integrated_gradients": {"steps": 4},
}
ON_CNNS = [name for name, method in METHODS.items() if "cnn" in method.models]


def images(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    return (nn.functional.interpolate(coarse, (64, 64)) + 0.3 * torch.randn(count, 3, 64, 64, generator=generator)).to(
        dtype
    )


@torch.no_grad()
def plain_scores(
    model: cl.HookedCNN, image: Tensor, blank: Tensor, start: int, cutoff: int, offsets: Iterable[tuple[int, int]]
) -> Tensor:
    """Logits [row, col, class]: one run on the blank per cell, with the image put in there at every patched point."""
    points = ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in range(model.n_layers))]
    points = points[start:cutoff]
    _, source = model.run_with_cache(image[None])
    rows, cols = model.grid
    found = torch.zeros(rows, cols, model.n_classes, dtype=image.dtype)
    for row in range(rows):
        for col in range(cols):
            near = [(row + dr, col + dc) for dr, dc in offsets if 0 <= row + dr < rows and 0 <= col + dc < cols]

            def put(x: Tensor, hook: Any, near: list[tuple[int, int]] = near) -> Tensor:
                x, (height, width) = x.clone(), x.shape[2:]
                for r, c in near:
                    for y in range(math.floor(r * height / rows), math.ceil((r + 1) * height / rows)):
                        for z in range(math.floor(c * width / cols), math.ceil((c + 1) * width / cols)):
                            x[0, :, y, z] = source[hook.name][0, :, y, z]
                return x

            found[row, col] = model.run_with_hooks(blank, fwd_hooks=[(name, put) for name in points])[0]
    return found


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert found.shape == expected.shape
    assert float((found.double() - expected.double()).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", [*SMALL])
def test_caap_equals_the_plain_definition(name: str) -> None:
    model = small_cnn(name, torch.float64)
    image, white = images(1, torch.float64)[0], blank_image(model, "white")
    layers = model.n_layers
    for start, cutoff, kind in ((0, None, "box1"), (0, 1, "none"), (0, layers, "cross1"), (2, layers - 1, "box1")):
        found = cl.caap(model, image, 0, start=start, cutoff=cutoff, neighbourhood=kind, chunk_size=7)
        assert found.settings["cutoff"] == (cutoff or max(1, round(2 / 3 * layers)))
        expected = plain_scores(model, image, white, start, found.settings["cutoff"], NEIGHBOURHOODS[kind])
        assert_close(found.all_scores, expected)


@pytest.mark.parametrize("name", THREE)
def test_removal_is_insertion_with_the_roles_swapped(name: str) -> None:
    model = small_cnn(name, torch.float64)
    image, blank = images(2, torch.float64)
    with torch.no_grad():
        whole = model(image[None])[0]
    for start, cutoff in ((0, model.n_layers), (2, 4)):
        options = {"start": start, "cutoff": cutoff, "neighbourhood": "cross1"}
        found = cl.caap(model, image, 3, blank=blank, direction="remove", **options)
        left = plain_scores(model, blank, image[None], start, cutoff, NEIGHBOURHOODS["cross1"])
        assert_close(found.all_scores, whole - left)
        assert_close(found.scores, (whole - left)[..., 3])
    zero = cl.caap(model, image, 3, blank="zero_activations", direction="remove", start=1, cutoff=2).all_scores

    def put(x: Tensor, hook: Any) -> Tensor:
        places = torch.zeros(1, 1, *model.grid, dtype=x.dtype, device=x.device)
        places[..., :2, :2] = 1  # the box around the first cell
        return x.masked_fill(nn.functional.adaptive_max_pool2d(places, x.shape[2:]) > 0, 0)

    with torch.no_grad():
        left = model.run_with_hooks(image[None], fwd_hooks=[("blocks.0.hook_resid_post", put)])[0]
    assert_close(zero[0, 0], whole - left)


@pytest.mark.parametrize("name", THREE)
def test_caap_on_grids_that_do_not_fit_the_maps(name: str) -> None:
    """Under 8 x 16 cells: finer maps, maps in which cells share places, and cells that are not square."""
    model = small_cnn(name, torch.float64, grid=(8, 16))
    image, blank = images(2, torch.float64)
    found = cl.caap(model, image, 0, cutoff=model.n_layers, blank=blank, neighbourhood="none")
    assert found.settings["blank"].startswith("image ")
    assert_close(found.all_scores, plain_scores(model, image, blank[None], 0, model.n_layers, [(0, 0)]))


@pytest.mark.parametrize("name", THREE)
def test_identities(name: str) -> None:
    model = small_cnn(name, torch.float64, grid=(2, 2))  # where box1 is the whole image
    image = images(1, torch.float64)[0]
    white = blank_image(model, "white")
    with torch.no_grad():
        of_image, of_blank = model(image[None])[0], model(white)[0]
    nothing = cl.caap(model, image, 0, cutoff=0).all_scores
    itself = cl.caap(model, white, 0, cutoff=model.n_layers, neighbourhood="none").all_scores
    assert_close(nothing, of_blank.expand(2, 2, -1))
    assert_close(itself, of_blank.expand(2, 2, -1))
    for start, cutoff in ((0, 1), (0, model.n_layers), (3, 4)):
        assert_close(cl.caap(model, image, 0, start=start, cutoff=cutoff).all_scores, of_image.expand(2, 2, -1))
    zero = cl.caap(model, image, 0, cutoff=1, blank="zero_activations").all_scores
    assert_close(zero, of_image.expand(2, 2, -1))


def test_zero_activations_enter_the_first_patched_block() -> None:
    model = small_cnn("resnet18", torch.float64)
    found = cl.caap(model, images(1, torch.float64)[0], 0, cutoff=0, blank="zero_activations")
    with torch.no_grad():
        hooks = [("hook_embed", lambda x, hook: torch.zeros_like(x))]
        expected = model.run_with_hooks(blank_image(model, "black"), fwd_hooks=hooks)[0]
    assert_close(found.all_scores, expected.expand(4, 4, -1))
    assert found.settings["blank"] == "zero_activations"


def test_what_a_map_of_a_cnn_says() -> None:
    model, batch = small_cnn("resnet18"), images(3)
    found = cl.caap(model, batch, progress=False)
    with torch.no_grad():
        assert [m.target for m in found] == model(batch).argmax(1).tolist()
    settings = {"cutoff": 5, "start": 0, "neighbourhood": "box1", "seed": 0, "context": "free", "blank": "white"}
    assert found[0].settings == settings and found[0].all_scores.shape == (4, 4, 7)
    assert_close(found[0].for_target(3).scores, cl.caap(model, batch[0], 3).scores, 1e-5)
    assert_close(found[0].scores, cl.caap(model, batch[0], context="free", attention="exact").scores, 1e-5)
    assert cl.attribute(model, batch[0], "grad_cam", 3).settings == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("caap", {"context": "clamped"}, "resnet18 is a CNN, where CAAP runs in the free context"),
        ("caap", {"context": "frozen"}, "context='frozen'.* omit all three"),
        ("caap", {"attention": "cached"}, "no attention to approximate"),
        ("caap", {"tail": "shared"}, "no attention to approximate"),
        ("caap", {"cutoff": 9}, "cutoff=9 must lie from 0"),
        ("caap", {"start": 8}, "start=8 must be a whole number from 0 to 7"),
        ("caap", {"neighbourhood": "box9"}, "no neighbourhood 'box9'"),
        ("caap", {"blank": cl.blanks.mean_activations(torch.zeros(1, 3, 64, 64))}, "for Vision Transformers"),
        ("grad_cam", {"version": "token"}, "grad_cam has no option 'version'"),
        ("rollout", {}, "rollout works on Vision Transformers; resnet18 is a CNN"),
    ],
)
def test_what_does_not_fit_a_cnn_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(cl.InputError, match=message):
        cl.attribute(small_cnn("resnet18"), images(1), name, 0, **options)


def test_a_cnn_with_hooks_or_in_training_is_refused() -> None:
    model = small_cnn("vgg")
    model.add_hook("hook_embed", lambda x, hook: x)
    with pytest.raises(cl.InputError, match="has hooks"):
        cl.caap(model, images(1), 0)
    model.reset_hooks()
    with pytest.raises(cl.InputError, match="training mode"):
        cl.caap(model.train(), images(1), 0)


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize(
    "method, oracle", [("grad_cam", GradCAM), ("grad_cam_plus_plus", GradCAMPlusPlus), ("score_cam", ScoreCAM)]
)
def test_agrees_with_pytorch_grad_cam(name: str, method: str, oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package enlarges from corner to corner, which shifts cells; Score-CAM's authors do it between centres.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    monkeypatch.setattr("tqdm.tqdm", lambda steps: steps)
    batch = images(2)
    cnn = small_cnn(name).cnn  # timm's model as it is, and one that no other test sees
    layer = cnn.layer4[-1] if name == "resnet18" else cnn.features[-1 if name == "densenet" else -2]
    with oracle(model=cnn, target_layers=[layer]) as cam:
        expected = cam(batch, [ClassifierOutputTarget(target) for target in (3, 0)])
    maps = cl.attribute(small_cnn(name), batch, method, [3, 0], progress=False)
    found = scale_cam_image(scale_cam_image(torch.stack([m.scores for m in maps]).numpy(), (64, 64)))
    assert np.count_nonzero(expected) > 0
    assert np.abs(found - expected).max() < 1e-4


def test_the_highest_cell_lies_on_the_object() -> None:
    """On 60 such scenes it did so in 97 percent of them; a cell taken by chance does in 18."""
    model = cl.load_model("demo-cnn")
    scenes = cl.demo_images("single", 20, seed=11)
    with torch.no_grad():
        right = [
            s for s, guess in zip(scenes, model([s.image for s in scenes]).argmax(1), strict=True) if guess == s.label
        ]
    hits, chance = [], []
    for scene in right:
        m = cl.caap(model, scene.image, scene.label)
        held = np.asarray(scene.masks[scene.label]).reshape(8, 8, 8, 8).any(axis=(1, 3))
        hits.append(held[m.rank()[0]])
        chance.append(held.mean())
    assert len(right) >= 15 and np.mean(hits) >= 0.8 and np.mean(chance) < 0.3
