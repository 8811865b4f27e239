"""CAAP's contexts on timm's own model, with torch's hooks on timm's own blocks: nothing of the hooked model runs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from caap_lab.models.spec import ViTSpec
from caap_lab.models.tokens import neighbourhood


@torch.no_grad()
def timm_scores(vit: Any, spec: ViTSpec, image: Tensor, blank: Tensor, cutoff: int, context: str) -> Tensor:
    """Logits [row, col, class] in the free or clamped context, one forward of timm's model per patch.

    Every token enters block 0 as on the blank. A patch's 3 x 3 neighbourhood is as on the image up to `cutoff`; in the
    clamped context all tokens but it and those that carry the prediction are as on the blank throughout.
    """
    cells = [(row, col) for row in range(spec.grid[0]) for col in range(spec.grid[1])]
    sets = [neighbourhood(*cell, "box1").indices(spec) for cell in cells]
    return timm_sets(vit, spec, image, blank, cutoff, context, sets).view(*spec.grid, -1)


@torch.no_grad()
def timm_sets(
    vit: Any, spec: ViTSpec, image: Tensor, blank: Tensor, cutoff: int, context: str, sets: Iterable[Iterable[int]]
) -> Tensor:
    """Logits [set, class] of any sets of patch tokens, one forward of timm's model for each."""
    at_image, at_blank = entering(vit, image), entering(vit, blank)
    scores = []
    for patched in map(list, sets):
        others = [t for t in range(spec.n_tokens) if t not in patched and t not in spec.live_prefix]

        def edit(layer: int, x: Tensor, patched: list[int] = patched, others: list[int] = others) -> Tensor:
            x = at_blank[0].clone() if layer == 0 else x.clone()
            if context == "clamped" and (layer < spec.n_layers or spec.reads_patches):
                x[:, others] = at_blank[layer][:, others]
            if layer < cutoff:
                x[:, patched] = at_image[layer][:, patched]
            return x

        scores.append(edited(vit, blank, edit))
    return torch.stack(scores)


def entering(vit: Any, image: Tensor) -> list[Tensor]:
    """What enters every block of timm's model, and what leaves the last."""
    kept: list[Tensor] = []

    def keep(layer: int, x: Tensor) -> Tensor:
        kept.append(x)
        return x

    edited(vit, image, keep)
    return kept


def edited(vit: Any, image: Tensor, edit: Callable[[int, Tensor], Tensor]) -> Tensor:
    """timm's logits while what enters each block, and what leaves the last, is changed."""
    blocks = list(vit.blocks)
    handles = [
        block.register_forward_pre_hook(lambda module, inputs, layer=layer: (edit(layer, inputs[0]), *inputs[1:]))
        for layer, block in enumerate(blocks)
    ]
    handles.append(blocks[-1].register_forward_hook(lambda module, inputs, output: edit(len(blocks), output)))
    try:
        return vit(image[None])[0]
    finally:
        for handle in handles:
            handle.remove()
