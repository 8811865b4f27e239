"""Occlusion: how much the score drops when a window of the image is covered (Zeiler & Fergus 2014, ECCV)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import sum_patches
from caap_lab.attribution.cost import ModelSize, Passes
from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.blur import rise_blur
from caap_lab.checks import check_count, check_seed
from caap_lab.engine.blanks import Blank, blank_image, check_blank
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Targets


@torch.no_grad()
def occlusion(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    window: int | None = None,
    stride: int | None = None,
    blank: Blank = "mean",
    chunk_size: int = 64,
    seed: int = 0,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """Mean over a patch's pixels u of the mean over windows W around u of p_c(x) - p_c(x with W covered); signed.

    Windows begin at pixel 0 and lie `stride` apart, down and across; the last one of a row or column is cut off at the
    image's edge. Each pixel lies in at least one window. The paper shows p_c(x with W covered) itself at each window's
    position; the difference, and its mean over overlapping windows, are those of Captum (`captum.attr.Occlusion`).

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        window: Side of a window in pixels; by default two patches in both directions.
        stride: Pixels between windows; by default one patch.
        blank: What covers a window: "mean" (grey, as in the paper), "white", "black", "noise", "blurred_noise", any
            image, or "blur", the image itself under RISE's blur.
        chunk_size: Windows run at once; does not change results.
        seed: Seed of the noise blanks.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    for name, pixels in (("window", window), ("stride", stride)):
        if pixels is not None:
            check_count(name, pixels)
    sides, steps = _sizes(model.image_size, model.patch_size, window, stride)
    if any(step > side for step, side in zip(steps, sides, strict=True)):
        raise InputError(
            f"A stride of {_pixels(steps)} pixels skips pixels between windows of {_pixels(sides)}; use a stride that "
            "is at most the window."
        )
    blurs = isinstance(blank, str) and blank == "blur"
    if not blurs:
        check_blank(blank)
    check_count("chunk_size", chunk_size)
    check_seed(seed)
    cover = None if blurs else blank_image(model, blank, seed)
    if cover is None and not blurs:
        raise InputError("This blank consists of activations, not of an image; use an image, such as 'mean'.")
    rows, cols = (_firsts(*axis) for axis in zip(model.image_size, sides, steps, strict=True))
    corners = torch.tensor([(row, col) for row in rows for col in cols], device=images.device, dtype=torch.long)
    maps = []
    for image, target in zip(images[:, None], targets, strict=True):
        instead = rise_blur(image) if cover is None else cover

        def covered(part: Tensor, image: Tensor = image, instead: Tensor = instead) -> Tensor:
            return torch.where(_windows(part, sides, model.image_size), instead, image)

        whole = scores_in_chunks(model, image, lambda made: made, target, chunk_size, probability=probability)
        losses = whole - scores_in_chunks(model, corners, covered, target, chunk_size, probability=probability)
        maps.append(_mean_where_covered(losses, corners, sides, model.image_size))
    return sum_patches(model, torch.stack(maps)) / math.prod(model.patch_size)


def _windows(
    corners: Int[Tensor, "window 2"], sides: tuple[int, int], size: tuple[int, int]
) -> Bool[Tensor, "window 1 height width"]:
    """Masks of pixels that are True in each window."""
    down, across = (
        (places >= first[:, None]) & (places < first[:, None] + side)
        for places, first, side in zip(
            (torch.arange(n, device=corners.device) for n in size), corners.unbind(1), sides, strict=True
        )
    )
    return (down[:, :, None] & across[:, None, :])[:, None]


def _mean_where_covered(
    losses: Float[Tensor, " window"], corners: Int[Tensor, "window 2"], sides: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "height width"]:
    """For each pixel, the mean loss over the windows that contain it; in float64 on the CPU."""
    total, count = (torch.zeros(size, dtype=torch.float64, device="cpu") for _ in range(2))
    for loss, (row, col) in zip(losses.tolist(), corners.tolist(), strict=True):
        total[row : row + sides[0], col : col + sides[1]] += loss
        count[row : row + sides[0], col : col + sides[1]] += 1
    return total / count


def _firsts(pixels: int, side: int, step: int) -> range:
    """First pixels of windows: as many as it takes to reach the last pixel."""
    return range(0, math.ceil(max(0, pixels - side) / step) * step + 1, step)


def _sizes(
    size: tuple[int, int], patch: tuple[int, int], window: int | None, stride: int | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sides of windows and steps between them, each as (height, width) in pixels."""
    height, width = (window or 2 * pixels for pixels in patch)
    return (min(size[0], height), min(size[1], width)), patch if stride is None else (stride, stride)


def _pixels(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} x {pair[1]}"


def _forwards(size: ModelSize, options: Mapping[str, Any]) -> float:
    """Forward passes: one per window, and one for the image."""
    patch = (size.image_size[0] // size.grid[0], size.image_size[1] // size.grid[1])
    sides, steps = _sizes(size.image_size, patch, options["window"], options["stride"])
    counts = (len(_firsts(*axis)) for axis in zip(size.image_size, sides, steps, strict=True))
    return math.prod(counts) + 1


OCCLUSION = method(
    occlusion,
    name="occlusion",
    family="masking",
    source="Zeiler & Fergus 2014, arXiv 1311.2901",
    needs="forward passes",
    sign="signed",
    forwards=Passes(_forwards, "about N"),
    score="attribution to prob",
    reads="pixels",
)
