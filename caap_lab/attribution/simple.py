"""Controls in input space: a block of the image inserted into a blank, or blanked out (CAAP, arXiv 2603.13652)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.cost import Passes
from caap_lab.attribution.masking import pixel_mask, scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, check_seed
from caap_lab.engine.blanks import Blank, blank_image, check_blank
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
from caap_lab.models.targets import Targets


def simple_insertion(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    neighbourhood: str = "box1",
    blank: Blank = "white",
    chunk_size: int = 64,
    seed: int = 0,
) -> Float[Tensor, "batch row col"]:
    """f_c(b with x in S_i): the target's logit for the blank with patch i's block S_i of the image in it.

    `neighbourhood` and `blank` are as in CAAP, for blanks that are images; `seed` is that of the noise blanks.
    """
    return _simple(model, images, targets, False, neighbourhood, blank, chunk_size, seed)


def simple_deletion(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    neighbourhood: str = "box1",
    blank: Blank = "white",
    chunk_size: int = 64,
    seed: int = 0,
) -> Float[Tensor, "batch row col"]:
    """-f_c(x with b in S_i): minus the target's logit for the image with patch i's block S_i blanked.

    It is negated, so that the patch whose removal lowers the logit most scores highest. Options as in
    `simple_insertion`.
    """
    return -_simple(model, images, targets, True, neighbourhood, blank, chunk_size, seed)


@torch.no_grad()
def _simple(
    model: HookedModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    delete: bool,
    neighbourhood: str,
    blank: Blank,
    chunk_size: int,
    seed: int,
) -> Float[Tensor, "batch row col"]:
    table = neighbourhood_table(model.grid, neighbourhood)
    check_blank(blank)
    check_count("chunk_size", chunk_size)
    check_seed(seed)
    empty = blank_image(model, blank, seed)
    if empty is None:
        raise InputError("This blank consists of activations, not of an image; use an image, such as 'white'.")
    blocks = table_masks(table).to(images.device)
    scores = []
    for image, target in zip(images[:, None], targets, strict=True):
        inside, outside = (empty, image) if delete else (image, empty)

        def put(part: Tensor, inside: Tensor = inside, outside: Tensor = outside) -> Tensor:
            return torch.where(pixel_mask(model, part), inside, outside)

        scores.append(scores_in_chunks(model, blocks, put, target, chunk_size, "logit"))
    return torch.stack(scores).reshape(-1, *model.grid)


SIMPLE_INSERTION = method(
    simple_insertion,
    name="simple_insertion",
    family="masking",
    source="control of CAAP, arXiv 2603.13652",
    needs="forward passes",
    sign="level",
    forwards=Passes(lambda size, options: size.n_patches, "N"),
    score="logit",
    reads="pixels",
)
SIMPLE_DELETION = method(
    simple_deletion,
    name="simple_deletion",
    family="masking",
    source="control of CAAP, arXiv 2603.13652",
    needs="forward passes",
    sign="level",
    forwards=Passes(lambda size, options: size.n_patches, "N"),
    score="negative logit",
    reads="pixels",
)
