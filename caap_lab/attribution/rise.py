"""RISE: the model's scores for randomly masked images (Petsiuk et al. 2018, BMVC, arXiv 1806.07421)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.activations_and_gradients import on_grid
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, check_seed, check_share
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Targets


@torch.no_grad()
def rise(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    samples: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    chunk_size: int = 64,
    probability: str = "auto",
) -> Float[Tensor, "batch row col"]:
    """1 / (n keep) sum over masks m of p_c(x M_m) M_m, the mean over each patch's pixels.

    Masked pixels are 0 in normalised space, as in the paper's code.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        samples: Number n of masks, which are the same for all images.
        cells: Rows and columns of cells in a mask.
        keep: Probability that a cell is kept.
        seed: Seed of the masks.
        chunk_size: Images run at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_count("samples", samples)
    check_count("cells", cells)
    check_share("keep", keep, zero=False, one=False)
    check_seed(seed)
    check_count("chunk_size", chunk_size)
    height, width = model.image_size
    cell = (math.ceil(height / cells), math.ceil(width / cells))
    generator = torch.Generator(device="cpu").manual_seed(seed)
    # On the CPU and in float32: the same masks on every device and in every number format.
    drawn = torch.rand(samples, cells, cells, generator=generator, dtype=torch.float32, device="cpu")
    kept = (drawn < keep).float()
    shifts = torch.stack([torch.randint(size, (samples,), generator=generator, device="cpu") for size in cell], dim=1)
    pooled, scores = [], []
    for grids, corners in zip(kept.split(chunk_size), shifts.split(chunk_size), strict=True):
        masks = _enlarge(grids, corners, cell, (height, width)).to(images.device, images.dtype)
        pooled.append(F.avg_pool2d(masks, model.patch_size).flatten(1))
        scores.append(
            torch.stack(
                [
                    scores_in_chunks(model, masks, image.mul, target, chunk_size, probability=probability)
                    for image, target in zip(images, targets, strict=True)
                ]
            )
        )
    weights = torch.cat(scores, dim=1)
    # One image at a time: the rounding of a matrix product depends on its size.
    cover = torch.cat(pooled).to(weights.dtype)
    return on_grid(model, torch.stack([w @ cover for w in weights]) / (samples * keep))


def _enlarge(
    grids: Float[Tensor, "mask cell cell"],
    corners: Int[Tensor, "mask 2"],
    cell: tuple[int, int],
    size: tuple[int, int],
) -> Float[Tensor, "mask 1 height width"]:
    """Masks enlarged bilinearly to one cell more than the image in both directions, cropped at their corners."""
    large = grids
    for axis, pixels in ((1, cell[0]), (2, cell[1])):
        lower, upper, share = _neighbours(grids.shape[axis], (grids.shape[axis] + 1) * pixels)
        share = share[:, None] if axis == 1 else share
        large = large.index_select(axis, lower) * (1 - share) + large.index_select(axis, upper) * share
    cut = [m[None, r : r + size[0], c : c + size[1]] for m, (r, c) in zip(large, corners.tolist(), strict=True)]
    return torch.stack(cut)


def _neighbours(cells: int, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells between which each pixel of an enlarged line lies, and the weight of the second.

    Positions outside the centres of the outermost cells are mirrored, like scikit-image's mode "reflect" in the
    authors' code: a pixel at the border includes part of the second cell.
    """
    centres = torch.arange(pixels, device="cpu").double().add(0.5).mul(cells / pixels).sub(0.5)
    inside = (cells - 1) - ((cells - 1) - centres.abs()).abs()
    lower = inside.floor().long().clamp(0, max(0, cells - 2))
    upper = (lower + 1).clamp(max=cells - 1)
    return lower, upper, (inside - lower).clamp(0, 1).float()


RISE = method(
    rise,
    name="rise",
    family="masking",
    source="Petsiuk et al. 2018, arXiv 1806.07421",
    needs="forward passes",
    sign="level",
    forwards=Passes(lambda size, options: options["samples"]),
    score="attribution to prob",
    reads="pixels",
)
