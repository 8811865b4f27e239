"""Gradient methods and Score-CAM: against plain loops over their formulas, other people's code, and identities."""

from collections.abc import Callable
from typing import Any

import caap_lab as cl  # isort: skip  # before other packages that import torchvision

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from caap_lab import HookedViT
from caap_lab.attribution.activations_and_gradients import sum_patches
from caap_lab.attribution.attcat import ATTCAT, attcat
from caap_lab.attribution.grad_cam import GRAD_CAM, grad_cam
from caap_lab.attribution.grad_cam_plus_plus import GRAD_CAM_PLUS_PLUS, grad_cam_plus_plus
from caap_lab.attribution.grad_sam import GRAD_SAM, grad_sam
from caap_lab.attribution.input_x_gradient import INPUT_X_GRADIENT, input_x_gradient
from caap_lab.attribution.integrated_gradients import INTEGRATED_GRADIENTS, integrated_gradients
from caap_lab.attribution.method import Method
from caap_lab.attribution.score_cam import SCORE_CAM, score_cam
from caap_lab.attribution.smoothgrad import SMOOTHGRAD, smoothgrad
from helpers.methods import FACTS
from helpers.models import build, random_images
from helpers.targets import of_classes


def relative_difference(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1))  # maps behind a ReLU may be zero throughout


def targets_of(count: int) -> Tensor:
    return torch.tensor([3, 0, 5])[:count]


# -- plain definitions, one image at a time -------------------------------------------------------------------------


def activation_and_gradient(model: HookedViT, image: Tensor, target: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The gradient is that of a zero which is added at the hook point."""
    kept = {}

    def add_zero(x: Tensor, hook: Any) -> Tensor:
        kept["x"], kept["zero"] = x.detach(), torch.zeros_like(x, requires_grad=True)
        return x + kept["zero"]

    logits = model.run_with_hooks(image[None], fwd_hooks=[(name, add_zero)])
    (gradient,) = torch.autograd.grad(logits[0, target], kept["zero"])
    return kept["x"][0].numpy(), gradient[0].numpy()


def patches_of(model: HookedViT) -> range:
    return range(model.spec.n_prefix, model.spec.n_tokens)


def plain_token_cam(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    a, g = activation_and_gradient(model, image, target, "blocks.3.ln1.hook_normalized")
    weights = [np.mean([g[p, k] for p in patches_of(model)]) for k in range(model.spec.d_model)]
    scores = [max(0.0, sum(w * a[p, k] for k, w in enumerate(weights))) for p in patches_of(model)]
    return np.reshape(scores, model.spec.grid)


def plain_last_input_cam(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    a, g = activation_and_gradient(model, image, target, "blocks.3.hook_resid_pre")
    weights = [np.mean([g[t, k] for t in range(model.spec.n_tokens)]) for k in range(model.spec.d_model)]
    return np.reshape([sum(w * a[p, k] for k, w in enumerate(weights)) for p in patches_of(model)], model.spec.grid)


def plain_attention_cam(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    attention, gradient = activation_and_gradient(model, image, target, "blocks.3.attn.hook_pattern")
    of_class = [t for t in model.spec.read_tokens if t < model.spec.n_prefix]
    of_patches = [t for t in model.spec.read_tokens if t >= model.spec.n_prefix]
    share = 0.5 if of_class and of_patches else 1.0  # of the class rows, and of the patch rows
    rows = {t: share / len(kind) for kind in (of_class, of_patches) for t in kind}
    scores = np.zeros(model.spec.n_patches)
    for head in range(model.spec.n_heads):
        weight = np.mean([sum(s * gradient[head, q, p] for q, s in rows.items()) for p in patches_of(model)])
        for i, p in enumerate(patches_of(model)):
            scores[i] += weight * sum(s * attention[head, q, p] for q, s in rows.items()) / model.spec.n_heads
    return np.maximum(scores, 0).reshape(model.spec.grid)


def plain_plus_plus(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    a, g = activation_and_gradient(model, image, target, "blocks.3.ln1.hook_normalized")
    scores = np.zeros(model.spec.n_tokens)
    for k in range(model.spec.d_model):
        total = sum(a[p, k] for p in patches_of(model))
        weight = 0.0
        for p in patches_of(model):
            alpha = g[p, k] ** 2 / (2 * g[p, k] ** 2 + total * g[p, k] ** 3 + 1e-6)
            weight += alpha * max(0.0, g[p, k])
        scores += weight * a[:, k]
    return np.maximum(scores[model.spec.n_prefix :], 0).reshape(model.spec.grid)


def plain_score_cam(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    a, _ = activation_and_gradient(model, image, target, "blocks.3.ln1.hook_normalized")
    a = a[model.spec.n_prefix :]
    scores = []
    for k in range(model.spec.d_model):
        up = enlarged(a[:, k].reshape(model.spec.grid), model.spec.image_size)
        mask = (up - up.min()) / (up.max() - up.min())
        scores.append(float(model((image * torch.from_numpy(mask))[None])[0, target].detach()))
    weights = np.exp(scores) / np.exp(scores).sum()
    return np.maximum(sum(w * a[:, k] for k, w in enumerate(weights)), 0).reshape(model.spec.grid)


def enlarged(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between the centres of cells, along columns and then along rows."""
    weights = []
    for count, length in zip(grid.shape, size, strict=True):
        pixels = (np.arange(length) + 0.5) * count / length
        weights.append(np.stack([np.interp(pixels, np.arange(count) + 0.5, one) for one in np.eye(count)], axis=1))
    return weights[0] @ grid @ weights[1].T


def pixel_gradient(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    image = image.clone().requires_grad_()
    model(image[None])[0, target].backward(inputs=[image])
    return image.grad.numpy()


def pooled(model: HookedViT, values: np.ndarray) -> np.ndarray:
    """Sum over the channels and pixels of each patch."""
    (rows, cols), (height, width) = model.spec.grid, model.spec.patch_size
    scores = np.zeros((rows, cols))
    for row in range(rows):
        for col in range(cols):
            scores[row, col] = values[:, row * height : (row + 1) * height, col * width : (col + 1) * width].sum()
    return scores


def plain_input_x_gradient(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    return pooled(model, image.numpy() * pixel_gradient(model, image, target))


def plain_integrated_gradients(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    nodes, weights = np.polynomial.legendre.leggauss(7)
    mean = sum(w / 2 * pixel_gradient(model, (x + 1) / 2 * image, target) for x, w in zip(nodes, weights, strict=True))
    return pooled(model, image.numpy() * mean)


def noisy_copies(image: Tensor, samples: int, noise: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sigma = noise * float(image.max() - image.min())
    return [image + sigma * torch.randn(image.shape, generator=generator).to(image) for _ in range(samples)]


def plain_smoothgrad(model: HookedViT, image: Tensor, target: int, kind: str = "absolute") -> np.ndarray:
    gradients = [pixel_gradient(model, copy, target) for copy in noisy_copies(image, 3, 0.2, 4)]
    if kind == "absolute":
        return pooled(model, sum(np.abs(g) for g in gradients) / 3)
    return pooled(model, sum(gradients) / 3 * (image.numpy() if kind == "times_input" else 1))


def plain_attcat(model: HookedViT, image: Tensor, target: int) -> np.ndarray:
    scores = np.zeros(model.spec.n_tokens)
    for layer in range(model.n_layers):
        h, g = activation_and_gradient(model, image, target, f"blocks.{layer}.hook_resid_pre")
        attention, _ = activation_and_gradient(model, image, target, f"blocks.{layer}.attn.hook_pattern")
        for t in range(model.spec.n_tokens):
            received = np.mean([row[t] for head in attention for row in head])
            scores[t] += received * sum(h[t] * g[t])
    return scores[model.spec.n_prefix :].reshape(model.spec.grid)


def plain_grad_sam(model: HookedViT, image: Tensor, target: int, rows: str = "all") -> np.ndarray:
    scores = np.zeros(model.spec.n_tokens)
    queries = [0] if rows == "cls" else range(model.spec.n_tokens)
    for layer in range(model.n_layers):
        attention, gradient = activation_and_gradient(model, image, target, f"blocks.{layer}.attn.hook_pattern")
        for head in range(model.spec.n_heads):
            for q in queries:
                scores += attention[head, q] * np.maximum(gradient[head, q], 0)
    scores /= model.n_layers * model.spec.n_heads * len(queries)
    return scores[model.spec.n_prefix :].reshape(model.spec.grid)


Case = tuple[Method, Callable[..., Tensor], dict[str, Any], Callable[..., np.ndarray], dict[str, Any]]
FEW: dict[str, Any] = {"samples": 3, "noise": 0.2, "seed": 4}
CASES: dict[str, Case] = {
    "grad_cam": (GRAD_CAM, grad_cam, {}, plain_token_cam, {}),
    "grad_cam last_input": (GRAD_CAM, grad_cam, {"version": "last_input"}, plain_last_input_cam, {}),
    "grad_cam attention": (GRAD_CAM, grad_cam, {"version": "attention"}, plain_attention_cam, {}),
    "grad_cam_plus_plus": (GRAD_CAM_PLUS_PLUS, grad_cam_plus_plus, {}, plain_plus_plus, {}),
    "score_cam": (SCORE_CAM, score_cam, {}, plain_score_cam, {}),
    "input_x_gradient": (INPUT_X_GRADIENT, input_x_gradient, {}, plain_input_x_gradient, {}),
    "integrated_gradients": (
        INTEGRATED_GRADIENTS,
        integrated_gradients,
        {"steps": 7},
        plain_integrated_gradients,
        {},
    ),
    "smoothgrad": (SMOOTHGRAD, smoothgrad, FEW, plain_smoothgrad, {}),
    "smoothgrad signed": (SMOOTHGRAD, smoothgrad, FEW | {"kind": "signed"}, plain_smoothgrad, {"kind": "signed"}),
    "smoothgrad times_input": (
        SMOOTHGRAD,
        smoothgrad,
        FEW | {"kind": "times_input"},
        plain_smoothgrad,
        {"kind": "times_input"},
    ),
    "attcat": (ATTCAT, attcat, {}, plain_attcat, {}),
    "grad_sam": (GRAD_SAM, grad_sam, {}, plain_grad_sam, {}),
    "grad_sam cls": (GRAD_SAM, grad_sam, {"rows": "cls"}, plain_grad_sam, {"rows": "cls"}),
}


@pytest.mark.parametrize("case", CASES)
def test_plain_definition(family: str, case: str) -> None:
    method, compute, options, plain, plain_options = CASES[case]
    model = build(family, torch.float64)
    images, targets = random_images(model, 3), targets_of(3)
    if options == FACTS[method.name].needs_class_token and "cls" not in model.spec.prefix:
        return  # refused, as the contracts say
    found = compute(model, images, of_classes(targets), **options)
    assert found.dtype == torch.float64 and not found.requires_grad
    assert bool(found.any())
    for i in (0, 2):  # the loops are slow
        expected = plain(model, images[i], int(targets[i]), **plain_options)
        assert relative_difference(found[i], expected) < 1e-5  # Captum's step sizes are float32


# -- other people's code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "dinov2_registers", "siglip", "odd_grid"])
@pytest.mark.parametrize(
    "compute, oracle", [(grad_cam, GradCAM), (grad_cam_plus_plus, GradCAMPlusPlus), (score_cam, ScoreCAM)]
)
def test_agrees_with_pytorch_grad_cam(
    family: str, compute: Callable[..., Tensor], oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The package enlarges from corner to corner, which shifts patches; Score-CAM's authors do it between centres.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, mode="bilinear"))
    monkeypatch.setattr("tqdm.tqdm", lambda steps: steps)
    model = build(family)
    images, targets = random_images(model, 2), targets_of(2)

    def as_channels(tokens: Tensor) -> Tensor:
        return tokens[:, model.spec.n_prefix :].mT.reshape(len(tokens), -1, *model.spec.grid)

    vit = build(family).vit  # timm's model as it is, and one that no other test sees
    with oracle(model=vit, target_layers=[vit.blocks[-1].norm1], reshape_transform=as_channels) as cam:
        expected = cam(images, [ClassifierOutputTarget(target) for target in targets.tolist()])
    enlarged = scale_cam_image(compute(model, images, of_classes(targets)).numpy(), model.spec.image_size[::-1])
    found = scale_cam_image(enlarged)  # once for each layer and once for their mean
    assert np.count_nonzero(expected) > 0
    assert relative_difference(found, expected) < 1e-4


@pytest.mark.parametrize("family", ["vit", "dino_head4", "siglip"])
def test_agrees_with_captum(family: str) -> None:
    model = build(family)
    images, targets = random_images(model, 2), targets_of(2)
    pixels = IntegratedGradients(model.vit if family == "vit" else model).attribute(images, target=targets)
    found = integrated_gradients(model, images, of_classes(targets))
    assert relative_difference(found, sum_patches(model, pixels.sum(1)).detach()) < 1e-4
    found = smoothgrad(model, images, of_classes(targets), samples=4, noise=0.1, seed=2)
    for scores, image, target in zip(found, images, targets.tolist(), strict=True):
        copies = torch.stack(noisy_copies(image, 4, 0.1, 2)).requires_grad_()
        pixels = Saliency(model).attribute(copies, target=target).mean(0).sum(0)
        assert relative_difference(scores, sum_patches(model, pixels[None])[0]) < 1e-4


# -- identities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "siglip", "dino_head4"])
def test_integrated_gradients_are_complete(family: str) -> None:
    model = build(family, torch.float64)
    images, targets = random_images(model, 1), targets_of(1)
    found = integrated_gradients(model, images, of_classes(targets), steps=400).sum()
    whole, empty = model(torch.cat([images, torch.zeros_like(images)]))[:, targets[0]].detach()
    assert float(found) == pytest.approx(float(whole - empty), rel=1e-3)


def test_pixels_are_summed_over_patches() -> None:
    model = build("odd_grid")
    pixels = torch.randn(2, *model.spec.image_size)
    assert relative_difference(sum_patches(model, pixels)[1], pooled(model, pixels[1][None].numpy())) < 1e-6


def test_pixels_beyond_the_last_patch_are_left_out() -> None:
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", img_size=39, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    model = HookedViT(vit)
    found = sum_patches(model, torch.ones(1, 39, 39))
    assert found.shape == (1, *model.spec.grid) and bool((found == 64).all())


def test_noise_of_smoothgrad() -> None:
    model = build("vit", torch.float64)
    images, targets = random_images(model, 1), targets_of(1)

    def run(**options: Any) -> Tensor:
        return smoothgrad(model, images, of_classes(targets), samples=2, **options)

    assert torch.equal(run(), run())
    assert relative_difference(run(seed=1), run()) > 1e-3
    gradient = pixel_gradient(model, images[0], int(targets[0]))
    assert relative_difference(run(noise=0.0)[0], pooled(model, np.abs(gradient))) < 1e-10
    assert (
        relative_difference(run(noise=0.0, kind="times_input"), input_x_gradient(model, images, of_classes(targets)))
        < 1e-10
    )


# -- as a user calls them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(CASES))
def test_libragrad_applies(case: str) -> None:
    method, compute, options, _, _ = CASES[case]
    model = build("vit", torch.float64)
    images, targets = random_images(model, 1), targets_of(1)
    expected = compute(model, images, of_classes(targets), **options)
    with cl.libragrad(model):
        found = compute(model, images, of_classes(targets), **options)
    assert (relative_difference(found, expected) < 1e-6) == (method is SCORE_CAM)  # which takes no gradient
    assert not model.has_hooks()
