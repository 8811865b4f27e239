"""MDA: patches ordered by a greedy search for the best insertion and deletion (Walker et al. 2025, ICLR)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.bidirectional import bidirectional
from caap_lab.attribution.cost import ModelSize, Passes
from caap_lab.attribution.curve_values import convex_falls, normalised, resampled
from caap_lab.attribution.masking import pixel_mask, scores_in_chunks
from caap_lab.attribution.mda_blur import mda_blur
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, check_share
from caap_lab.models.device_dtype import at_least_float32
from caap_lab.models.targets import Target, Targets
from caap_lab.models.vit import HookedViT

Image = Float[Tensor, "1 3 height width"]


@torch.no_grad()
def mda(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    gamma: float = 1.0,
    threshold: float = 0.9,
    kappa: float = 0.005,
    steps: int = 20,
    start_layer: int | None = None,
    chunk_size: int = 64,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """(1 - gamma) sparse + gamma dense, from the falls of a response curve along an order of the P patches.

    1. A reference map, bidirectional attention, selects the patches to try: K = min(28, 2 floor(sqrt(P))) per step. As
    in the published code it is blurred first; see `_smoothed`.
    2. Insertion into the blurred image: of the K highest unused patches, the one that raises p_c most is inserted,
       until p_c - p_blur >= threshold |p_x - p_blur|. These patches come first in the order.
    3. Deletion backwards, from zeros: of the K lowest unused patches, the one that leaves p_c lowest is inserted. These
    come last in the order, in reverse.
    4. The insertion and deletion curves of that order, one row of pixels per step, scaled to [0, 1] and
       made monotone, are resampled to P + 1 points. y is the convex curve nearest to 1 - mean(ins, 1 - del).
    5. The n-th patch with the fall d = y_{n-1} - y_n gets the value d / |patch| + d (P - n) / P in the sparse map. In
       the dense map it gets (P - n) / P if that value is kappa or more, and the value otherwise; this map is then
       scaled to the sparse map's maximum.

    Unlike the published code this uses all patches if insertion never reaches the threshold, works for any target and
    grid, and keeps the widest blur if none brings p_c to 1 %. Segments are the patches; the published SLIC (compactness
    10000) finds nearly these, 14 x 14 squares of which about a tenth of the pixels, along the edges, go to a neighbour.
    The map is that of the patches, before the published code's last step, which resizes it down and up again and so
    blurs it. The published preliminary map only orders pixels, and its values decrease along the order found here, so
    the order itself is used. As published, responses below that of a blank count as the blank's: a target whose score
    is lower for the image than for both blanks gets a map of zeros.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        gamma: Weight of the dense map; the authors use 0, 0.5 and 1.
        threshold: Where insertion stops (the paper's tau).
        kappa: Smallest value of a patch that the dense map raises.
        steps: Number of images in the reference map's integral.
        start_layer: The reference map's first block, negative to count from the end; None is a quarter of the blocks.
        chunk_size: Images run at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_share("gamma", gamma)
    check_share("threshold", threshold, zero=False)
    check_share("kappa", kappa)
    check_count("chunk_size", chunk_size)
    maps = []
    for image, target in zip(images[:, None], targets, strict=True):
        reference = bidirectional(
            model, image, Targets((target,)), steps=steps, start_layer=start_layer, chunk_size=chunk_size
        )
        reference = _smoothed(model, reference).flatten()
        blank = torch.zeros_like(image)
        blurred = mda_blur(model, image, target, probability)
        ends = torch.cat([image, blurred, blank])
        p_image, p_blur, p_blank = scores_in_chunks(
            model, ends, lambda made: made, target, chunk_size, probability=probability
        ).tolist()

        rising = reference.argsort(descending=True, stable=True).tolist()
        enough = p_blur + threshold * abs(p_image - p_blur)
        order = _search(model, image, blurred, target, rising, True, enough, chunk_size, probability)
        used = set(order)
        falling = [patch for patch in reference.argsort(stable=True).tolist() if patch not in used]
        order += _search(model, image, blank, target, falling, False, math.inf, chunk_size, probability)[::-1]

        inserted = [p_blur, *_curve(model, image, blurred, target, order, chunk_size, probability), p_image]
        deleted = [p_image, *_curve(model, blank, image, target, order, chunk_size, probability), p_blank]
        insertion = normalised(np.array(inserted), p_blur, p_image, falling=False)
        deletion = normalised(np.array(deleted), p_blank, p_image, falling=True)
        curve = resampled(1 - (insertion + 1 - deletion) / 2, len(order) + 1)
        values = _values(convex_falls(curve), math.prod(model.spec.patch_size), gamma, kappa)
        scores = np.empty_like(values)
        scores[order] = values
        maps.append(torch.from_numpy(scores))
    return torch.stack(maps).to(images.device, at_least_float32(images.dtype)).reshape(-1, *model.spec.grid)


def _smoothed(model: HookedViT, reference: Float[Tensor, "1 row col"]) -> Float[Tensor, "1 row col"]:
    """The reference map enlarged to pixels and reduced to patches again, as in the published code.

    Both steps are bilinear and the second is antialiased, so a patch's value spreads to its neighbours: with patches of
    16 pixels 0.444 stays, 0.111 goes to each of four neighbours and 0.028 to each diagonal one.
    """
    size = [cells * pixels for cells, pixels in zip(model.spec.grid, model.spec.patch_size, strict=True)]
    large = F.interpolate(reference[None].cpu().double(), size, mode="bilinear", align_corners=False)
    return F.interpolate(large, model.spec.grid, mode="bilinear", align_corners=False, antialias=True)[0]


def _search(
    model: HookedViT,
    image: Image,
    start: Image,
    target: Target,
    candidates: list[int],
    highest: bool,
    enough: float,
    chunk_size: int,
    probability: str,
) -> list[int]:
    """Patches in the order in which they are inserted into `start`, until p_c is high enough or no candidate is left.

    Among patches with the same p_c the first candidate is chosen.
    """
    n_patches = model.spec.n_patches
    tries = min(28, 2 * math.isqrt(n_patches))

    def put(patches: Bool[Tensor, "choice patch"]) -> Tensor:
        return torch.where(pixel_mask(model, patches), image, start)

    left, found = list(candidates), []
    shown = torch.zeros(n_patches, dtype=torch.bool, device=image.device)
    while left:
        tried = left[:tries]
        masks = shown.repeat(len(tried), 1)
        masks[range(len(tried)), tried] = True
        scores = scores_in_chunks(model, masks, put, target, chunk_size, probability=probability)
        best = int(scores.argmax() if highest else scores.argmin())
        shown = masks[best]
        found.append(left.pop(best))
        if scores[best].item() >= enough:
            break
    return found


def _curve(
    model: HookedViT,
    inside: Image,
    outside: Image,
    target: Target,
    order: list[int],
    chunk_size: int,
    probability: str,
) -> list[float]:
    """p_c while pixels of `inside` are inserted into `outside`, patch by patch in this order, without both ends.

    A step is as many pixels as a row of patches is wide, which splits patches: these are filled row by row.
    """
    (rows, cols), (height, width) = model.spec.grid, model.spec.patch_size
    place = torch.empty(len(order), dtype=torch.long, device="cpu")
    place[order] = torch.arange(len(order), device="cpu")
    within = torch.arange(height * width, device="cpu").view(height, width).repeat(rows, cols)
    rank = place.view(rows, cols).repeat_interleave(height, dim=0).repeat_interleave(width, dim=1) * height * width
    rest = (0, model.spec.image_size[1] - cols * width, 0, model.spec.image_size[0] - rows * height)
    rank = F.pad(rank + within, rest).to(inside.device)

    def put(counts: Int[Tensor, "step"]) -> Tensor:
        return torch.where(rank < counts[:, None, None, None], inside, outside)

    counts = torch.arange(1, rows * height, device=inside.device) * cols * width
    return scores_in_chunks(model, counts, put, target, chunk_size, probability=probability).tolist()


def _values(falls: Float[np.ndarray, "patch"], pixels: int, gamma: float, kappa: float) -> Float[np.ndarray, "patch"]:
    """Values of patches in their order, from the falls of the response curve."""
    rest = 1 - np.arange(1, len(falls) + 1) / len(falls)
    sparse = falls / pixels + falls * rest
    dense = np.where(sparse >= kappa, rest, sparse)
    if dense.max() > 0:
        dense *= sparse.max() / dense.max()
    return (1 - gamma) * sparse + gamma * dense


def _forwards(size: ModelSize, options: Mapping[str, Any]) -> float:
    """Forward passes of the search, the two curves, three ends, the blur, and the reference map."""
    tries = min(28, 2 * math.isqrt(size.n_patches))
    search = tries * size.n_patches - tries * (tries - 1) // 2  # the last steps have fewer patches left
    curve = size.image_size[0] // size.grid[0] * size.grid[0] - 1
    return search + 2 * curve + 3 + 1 + options["steps"] + 1


MDA = method(
    mda,
    name="mda",
    family="masking",
    source="MDA, Walker et al. 2025, ICLR",
    needs="forward passes, gradient, attention",
    sign="positive",
    forwards=Passes(_forwards, "about 28 N"),
    backwards=Passes(lambda size, options: options["steps"] + 1),
    score="attribution to prob",
)
