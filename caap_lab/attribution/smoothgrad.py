"""SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import differentiable_scores, sum_patches
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.checks import check_choice, check_count, check_seed, check_share
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Target, Targets

KINDS = ("absolute", "signed", "times_input")


def smoothgrad(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    samples: int = 50,
    noise: float = 0.15,
    kind: str = "absolute",
    seed: int = 0,
    chunk_size: int = 64,
) -> Float[Tensor, "batch row col"]:
    """Mean over noisy copies of dy/dx at x + noise (max x - min x) e with normal e, summed over a patch's pixels.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        samples: Noisy copies per image.
        noise: Standard deviation, as a fraction of the image's range of values in normalised space.
        kind: "absolute": the mean of |dy/dx|; "signed": the mean of dy/dx; "times_input": that mean times x.
        seed: Seed of the noise, which is the same for all images.
        chunk_size: Noisy copies run at once; does not change results.
    """
    check_count("samples", samples)
    check_share("noise", noise)
    check_seed(seed)
    check_count("chunk_size", chunk_size)
    check_choice("kind", kind, KINDS)
    maps = []
    for image, target in zip(images.detach(), targets, strict=True):
        # On the CPU and in float32: the same noise on every device and in every number format.
        generator = torch.Generator(device="cpu").manual_seed(seed)
        deviation = noise * (image.max() - image.min())
        total = torch.zeros_like(image)
        for first in range(0, samples, chunk_size):
            # One copy at a time: the numbers from a generator depend on how many are drawn at once.
            count = min(chunk_size, samples - first)
            drawn = torch.stack(
                [torch.randn(image.shape, generator=generator, dtype=torch.float32, device="cpu") for _ in range(count)]
            )
            gradient = _input_gradient(model, image + deviation * drawn.to(image), target)
            total += (gradient.abs() if kind == "absolute" else gradient).sum(0)
        mean = total / samples
        maps.append((image * mean if kind == "times_input" else mean).sum(0))
    return sum_patches(model, torch.stack(maps))


def _input_gradient(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], target: Target
) -> Float[Tensor, "batch 3 height width"]:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        scores = differentiable_scores(Targets((target,) * len(images)), model(images))
        return torch.autograd.grad(scores.sum(), images)[0]


SMOOTHGRAD = method(
    smoothgrad,
    name="smoothgrad",
    family="gradient",
    source="Smilkov et al. 2017, arXiv 1706.03825",
    needs="gradient",
    sign="positive",
    signed_with={"kind": ("signed", "times_input")},
    forwards=Passes(lambda size, options: options["samples"]),
    backwards=Passes(lambda size, options: options["samples"]),
    reads="pixels",
)
