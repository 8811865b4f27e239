"""Attribution methods beside those of pytorch-grad-cam and Captum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import caap_lab as cl
from benchmarks.peers_job import PEERS, TARGET, Calls, Job, inputs, largest_difference, rank_correlation

BATCH = 16
"""Images at once, in both tools."""
STEPS = 20
"""Nodes of Integrated Gradients, and samples of SmoothGrad."""


def jobs() -> list[Job]:
    """All of them."""
    cam, tiny = PEERS["pytorch-grad-cam"], "ViT-tiny, 112 px"
    return [
        Job("Grad-CAM", cam, "ViT-tiny, 224 px", grad_cam),
        Job("Grad-CAM", cam, "ViT-B/16, 224 px", grad_cam),
        Job("Grad-CAM++", cam, "ViT-tiny, 224 px", grad_cam_plus_plus),
        Job("Score-CAM", cam, tiny, score_cam),
        Job("Integrated Gradients", PEERS["Captum"], tiny, integrated_gradients),
        Job("SmoothGrad", PEERS["Captum"], tiny, smoothgrad),
        Job("occlusion", PEERS["Captum"], tiny, occlusion),
    ]


def grad_cam(model: str) -> Calls:
    """Grad-CAM."""
    return _cam(model, "grad_cam", "GradCAM", same=True)


def grad_cam_plus_plus(model: str) -> Calls:
    """Grad-CAM++."""
    return _cam(model, "grad_cam_plus_plus", "GradCAMPlusPlus", same=True)


def score_cam(model: str) -> Calls:
    """Score-CAM; pytorch-grad-cam enlarges activations with aligned corners, so results differ."""
    return _cam(model, f"score_cam:chunk_size={BATCH}", "ScoreCAM", same=False)


def _cam(name: str, ours: str, theirs: str, same: bool) -> Calls:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    vit, model, image = inputs(name)

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, model.grid)

    def peer() -> Any:
        with getattr(pytorch_grad_cam, theirs)(vit, [vit.blocks[-1].norm1], reshape_transform=reshape) as cam:
            cam.batch_size = BATCH
            return cam(input_tensor=image, targets=[ClassifierOutputTarget(TARGET)])

    def compare(mine: Tensor, other: Any) -> float:
        # Scaled twice, as there: once per layer, and once over all layers.
        enlarged = scale_cam_image(scale_cam_image(mine[None].numpy(), model.image_size[::-1]))
        return (largest_difference if same else rank_correlation)(enlarged, other)

    return Calls(_map(model, image, ours), peer, compare, "largest difference" if same else "rank correlation")


def integrated_gradients(name: str) -> Calls:
    """Integrated Gradients, which caap_lab lets Captum compute."""
    from captum.attr import IntegratedGradients

    vit, model, image = inputs(name)

    def peer() -> Tensor:
        products = IntegratedGradients(vit).attribute(image, target=TARGET, n_steps=STEPS, internal_batch_size=BATCH)
        return _per_patch(model, products)

    ours = _map(model, image, f"integrated_gradients:steps={STEPS},chunk_size={BATCH}")
    return Calls(ours, peer, largest_difference)


def smoothgrad(name: str) -> Calls:
    """SmoothGrad; the noise is drawn by each tool, so results differ."""
    from captum.attr import NoiseTunnel, Saliency

    vit, model, image = inputs(name)
    deviation = 0.15 * float(image.max() - image.min())

    def peer() -> Tensor:
        gradients = NoiseTunnel(Saliency(vit)).attribute(
            image, target=TARGET, nt_type="smoothgrad", nt_samples=STEPS, nt_samples_batch_size=BATCH, stdevs=deviation
        )
        return _per_patch(model, gradients)

    ours = _map(model, image, f"smoothgrad:samples={STEPS},chunk_size={BATCH}")
    return Calls(ours, peer, rank_correlation, "rank correlation")


def occlusion(name: str) -> Calls:
    """Occlusion by windows of one patch, which is Captum's FeatureAblation of patches."""
    from captum.attr import FeatureAblation

    vit, model, image = inputs(name)
    side = model.patch_size[0]
    rows, cols = (torch.arange(pixels, dtype=torch.long, device="cpu") // side for pixels in model.image_size)
    patches = (rows[:, None] * model.grid[1] + cols)[None, None]

    @torch.no_grad()
    def peer() -> Tensor:
        method = FeatureAblation(lambda images: vit(images).softmax(-1))
        drops = method.attribute(image, target=TARGET, feature_mask=patches, perturbations_per_eval=BATCH)
        return drops[0, 0, ::side, ::side]

    ours = _map(model, image, f"occlusion:window={side},stride={side},chunk_size={BATCH}")
    return Calls(ours, peer, largest_difference)


def _map(model: cl.HookedViT, image: Tensor, method: str) -> Callable[[], Tensor]:
    """Our scores of patches."""

    def scores() -> Tensor:
        found = cl.attribute(model, image, method, TARGET, progress=False)
        assert isinstance(found, cl.AttributionMap)
        return found.scores

    return scores


def _per_patch(model: cl.HookedViT, pixels: Tensor) -> Tensor:
    """Sums over the pixels and channels of each patch, of one image."""
    return (torch.nn.functional.avg_pool2d(pixels.detach(), model.patch_size, divisor_override=1)).sum(1)[0]
