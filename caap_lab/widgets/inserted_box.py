"""Inserting a box of patches into the blank image: the run, and the Python calls that do the same."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.patch import Patch
from caap_lab.activations.run_patched import run_patched
from caap_lab.engine.blanks import blank_image
from caap_lab.models import tokens
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def insert_box(
    model: HookedViT, x: Float[Tensor, "1 3 height width"], box: Sequence[int], cutoff: int, blank: str
) -> Float[Tensor, "classes"]:
    """Logits of the blank image with the patches of a box inserted into the first blocks.

    Args:
        model: The model.
        x: The image that the patches come from, as model input.
        box: First row and column and last row and column, the last two inside the box.
        cutoff: Number of blocks, from the first one, into which the patches are inserted.
        blank: Name of the blank image.
    """
    top, left, bottom, right = box
    source = model.record(x, names=["resid_pre"], layers=range(cutoff))
    where = tokens.box(top, left, bottom + 1, right + 1)
    patch = Patch("resid_pre", layers=range(cutoff), tokens=where, source=source)
    return run_patched(model, blank_image(model, blank), [patch])[0].float().cpu()


def insert_box_calls(image_call: str, box: Sequence[int], cutoff: int, blank: str) -> list[str]:
    """The Python calls that compute the logits of `insert_box`.

    Args:
        image_call: The Python expression of the image.
        box: As in `insert_box`.
        cutoff: As in `insert_box`.
        blank: As in `insert_box`.
    """
    top, left, bottom, right = box
    return [
        f"source = model.record({image_call}, names=['resid_pre'], layers=range({cutoff}))",
        f"box = cl.tokens.box({top}, {left}, {bottom + 1}, {right + 1})",
        f"patch = cl.Patch('resid_pre', layers=range({cutoff}), tokens=box, source=source)",
        f"model.run_patched(cl.blanks.blank_image(model, {blank!r}), [patch])",
    ]
