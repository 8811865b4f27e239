"""CAAP restricted to heads, or to a block's attention or MLP: which parts carry the evidence of a patch?"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.activations.cells import Cell, CellRuns, image_chunks
from caap_lab.activations.patch import Patch, head_mask, possible_edits
from caap_lab.activations.record import record
from caap_lab.activations.store import ActivationStore
from caap_lab.attribution.caap import caap
from caap_lab.checks import check_choice, check_count, is_whole
from caap_lab.engine.blanks import Blank, blank_image, blank_name
from caap_lab.engine.plan import check_ready
from caap_lab.errors import InputError
from caap_lab.labels import named
from caap_lab.mechanisms.ablation import PARTS
from caap_lab.mechanisms.part_result import CaapParts
from caap_lab.mechanisms.patch_choice import PatchChoice, check_patches, chosen_patches
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.explained import predicted_targets, several_explained
from caap_lab.models.names import check_layers
from caap_lab.models.neighbourhoods import find_neighbourhood
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Target, Targets
from caap_lab.models.tokens import neighbourhood as neighbours
from caap_lab.models.vit import HookedViT

WHAT = {"writes": ("z",), "reads": ("k", "v")}
"""Hook points that are patched, by which activations of a head are meant."""
Heads = Mapping[str, Iterable[tuple[int, int]]]
"""Heads that are patched together, as (layer, head), by name."""


@runs_model
@torch.no_grad()
def caap_by_head(
    model: HookedViT,
    images: Images,
    target: Any = None,
    *,
    layers: int | Iterable[int] | None = None,
    heads: int | Iterable[int] | Heads | None = None,
    what: str = "writes",
    patches: PatchChoice = "all",
    neighbourhood: str = "box1",
    blank: Blank = "white",
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> CaapParts:
    """A CAAP map for each head: the effect of a patch through this head only.

    ```python
    found = cl.caap_by_head(model, "cat.jpg", "tabby", layers=range(6, 12), what="reads")
    found.plot(patch=(4, 7))                     # layer x head: who carries this patch?
    found.maps.sel(layer=8, head=1)              # this head's map, [image, row, col]
    cl.caap_by_head(model, photos, "tabby", heads={"late": [(10, 0), (11, 2)]})   # patched together
    ```

    CAAP inserts the complete residual stream of a patch's neighbourhood S_i into the run on the blank, in many blocks.
    Here, only one head of one block receives activations of the image, and only at S_i:

    - what="writes": its output z at S_i is that of the image, including everything that it read there from any patch.
    - what="reads": its keys and values at S_i are those of the image; the queries that read them, and all other keys
        and values, are the blank's.

    Everything else is computed as usual. The effect is the target's score in that run minus its score on the blank.

    Cost per image: a forward pass per head and patch, minus the blocks before the head's block, which run once: for 12
    layers of 3 heads and 196 patches, 7056 runs or about 3800 forward passes. The result records the number as
    `passes`; restrict layers, heads or patches to lower it. Effects that cannot reach the classifier (what patch tokens
    write in the last block, if it reads a class token) are 0 without a run.

    Args:
        model: A Vision Transformer.
        images: One image, or several.
        target: What is scored, one for all images or one per image: a class, `cl.contrast(a, b)`, a direction or a
            function of the logits; None for the model's own prediction on the image. Several by name become the last
            axis.
        layers: Blocks; None for all.
        heads: Heads of each block, None for all; or {"name": [(layer, head), ...]}: groups of heads that are patched
            together, with one map per group.
        what: "writes" or "reads".
        patches: "all"; a list of cells (row, col); or for one image "top10" (or another number), the highest of its
            CAAP map with the default cutoff.
        neighbourhood: S_i, as in `cl.caap`.
        blank: The blank image, as in `cl.caap`; blanks that consist of activations cannot be used because the model
            runs on it.
        seed: Seed of the noise blanks.
        batch_size: Rows run at once: runs times images.
        progress: Show a progress bar over runs.

    Returns:
        Effects [image, layer, head, patch], with maps, bars and tables.

    Raises:
        InputError: an argument is invalid; raised before any patched run.
    """
    check_kind(model, "caap_by_head")
    check_choice("what", what, list(WHAT))
    points = WHAT[what]
    axes, parts = _head_parts(model, layers, heads, points)
    return _by_part(
        model,
        images,
        target,
        axes,
        parts,
        patches,
        neighbourhood,
        blank,
        seed,
        batch_size,
        progress,
        part=f"what heads {'write at' if what == 'writes' else 'read of'} a patch",
        points=", ".join(points),
    )


@runs_model
@torch.no_grad()
def caap_by_block(
    model: HookedViT,
    images: Images,
    target: Any = None,
    *,
    part: str = "attn",
    layers: int | Iterable[int] | None = None,
    patches: PatchChoice = "all",
    neighbourhood: str = "box1",
    blank: Blank = "white",
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> CaapParts:
    """A CAAP map for each block's attention or MLP: the effect of a patch through this part only.

    In the run on the blank image, the part's output (`attn_out` or `mlp_out`, after LayerScale) at a patch's
    neighbourhood S_i is replaced by that of the image; everything else is computed as usual. The effect is the target's
    score in that run minus its score on the blank. Cost and other arguments are those of `caap_by_head`.

    ```python
    cl.caap_by_block(model, "cat.jpg", "tabby", part="mlp").plot_layers()
    ```

    Args:
        model: A Vision Transformer.
        images: One image, or several.
        target: What is scored.
        part: "attn" or "mlp".
        layers: Blocks; None for all.
        patches: "all", a list of cells (row, col), or "top10".
        neighbourhood: S_i.
        blank: The blank image.
        seed: Seed of the noise blanks.
        batch_size: Rows run at once: runs times images.
        progress: Show a progress bar over runs.

    Returns:
        Effects [image, layer, patch], with maps, bars and tables.

    Raises:
        InputError: an argument is invalid; raised before any patched run.
    """
    check_kind(model, "caap_by_block")
    check_choice("part", part, list(PARTS))
    chosen = check_layers(layers, model.spec.n_layers)
    parts = [[Patch(PARTS[part], layer)] for layer in chosen]
    return _by_part(
        model,
        images,
        target,
        {"layer": chosen},
        parts,
        patches,
        neighbourhood,
        blank,
        seed,
        batch_size,
        progress,
        part=f"what a block's {'attention' if part == 'attn' else 'MLP'} writes at a patch",
        points=PARTS[part],
    )


Part = Sequence[Patch]
"""What one map inserts: hook points, layers and heads; each run inserts them at the tokens of one patch."""


def _head_parts(
    model: HookedViT, layers: Any, heads: Any, points: Sequence[str]
) -> tuple[dict[str, list[Any]], list[Part]]:
    """The axes of heads, and what each of their cells inserts."""
    n_layers, n_heads = model.spec.n_layers, model.spec.n_heads
    if not isinstance(heads, Mapping):
        chosen = check_layers(layers, n_layers)
        one = heads if heads is None or is_whole(heads) else list(heads)
        mask = head_mask(model, Patch("z", heads=one), "z", n_heads)
        numbers = mask.nonzero()[:, 0].tolist()
        parts: list[Part] = [
            [Patch(point, layer, heads=head) for point in points] for layer, head in product(chosen, numbers)
        ]
        return {"layer": chosen, "head": numbers}, parts
    if layers is not None:
        raise InputError("Groups of heads, {'name': [(layer, head), ...]}, already contain layers: omit layers.")
    groups: list[Part] = []
    for name, given in heads.items():
        pairs = [tuple(pair) if isinstance(pair, Sequence) else pair for pair in given]
        for pair in pairs:
            whole = isinstance(pair, tuple) and len(pair) == 2 and all(is_whole(number) for number in pair)
            if not whole or not (0 <= pair[0] < n_layers and 0 <= pair[1] < n_heads):
                raise InputError(
                    f"heads={{{name!r}: ...}}: {pair!r} is not a (layer, head); there are layers 0 to {n_layers - 1} "
                    f"and heads 0 to {n_heads - 1}."
                )
        if not pairs:
            raise InputError(f"heads={{{name!r}: []}} names no head.")
        by_layer: dict[int, list[int]] = {}
        for layer, head in sorted(set(pairs)):
            by_layer.setdefault(layer, []).append(head)
        groups.append([Patch(point, layer, heads=own) for layer, own in by_layer.items() for point in points])
    if not groups:
        raise InputError("heads={} contains no group of heads; use {'name': [(layer, head), ...]}, or omit heads.")
    return {"heads": [str(name) for name in heads]}, groups


def _by_part(
    model: HookedViT,
    images: Images,
    target: Any,
    axes: dict[str, list[Any]],
    parts: Sequence[Part],
    patches: PatchChoice,
    neighbourhood: str,
    blank: Blank,
    seed: int,
    batch_size: int,
    progress: bool,
    **attributes: str,
) -> CaapParts:
    """Run every part and patch for all images."""
    check_count("batch_size", batch_size)
    check_ready(model)
    find_neighbourhood(neighbourhood)
    singles = check_images(images)
    check_patches(patches, model.grid, len(singles))
    pixels_of_blank = blank_image(model, blank, seed)
    if pixels_of_blank is None:
        raise InputError(
            "This blank consists of activations, so the model cannot run on it; give an image, or blank='white', "
            "'black', 'mean', 'noise' or 'blurred_noise'."
        )
    targets: dict[str, Targets] | None = None
    if target is not None:
        model, targets = several_explained(model, target, len(singles))
    if targets is None:
        own = [model(singles[rows]) for rows in image_chunks(model, len(singles), batch_size)]
        targets = {"": predicted_targets(model, torch.cat(own))}
    several = list(targets) if isinstance(target, Mapping) else None
    read = list(targets.values())
    where = {"neighbourhood": neighbourhood, "blank": blank, "seed": seed}
    cells = chosen_patches(patches, model.grid, len(singles), lambda: _ranked(model, singles[0], read[0][0], where))
    tokens = [neighbours(*cell, neighbourhood).indices(model.spec) for cell in cells]
    values = np.zeros((len(singles), len(parts) * len(cells), len(read)))
    baseline = np.zeros((len(singles), len(read)))
    pixels, passes = [], 0.0
    points, layers = _recorded(model, parts)
    chunks = image_chunks(model, len(singles), batch_size)
    with tqdm(total=values.shape[1] * len(chunks), desc="CAAP by parts", unit="run", disable=not progress) as bar:
        for rows in chunks:
            batch = model.preprocess(singles[rows])
            pixels += [model.preprocessing.to_rgb(image) for image in batch]
            source = record(
                model, batch, points, layers=layers, device=model.device, batch_size=batch_size, progress=False
            )
            made = _cells(model, parts, tokens, source, len(batch))
            run = [place for place, edits in enumerate(made) if edits]
            bar.update(len(made) - len(run))
            runs = CellRuns(model, pixels_of_blank.repeat(len(batch), 1, 1, 1), batch_size)
            here = [each[rows] for each in read]
            for places, logits in runs.logits([made[place] for place in run]):
                values[rows, [run[place] for place in places]] = np.stack([_scores(here, cell) for cell in logits], 1)
                bar.update(len(places))
            baseline[rows] = _scores(here, runs.unpatched())
            unreached = [place for place, edits in enumerate(made) if not edits]
            values[rows, unreached] = baseline[rows][:, None]
            passes += runs.passes + len(batch) * (layers[-1] + 1) / model.spec.n_layers
    name = named(one.name for one in read[0]) if several is None else ", ".join(several)
    return CaapParts.of(
        axes | {"patch": cells},
        values,
        baseline,
        several,
        grid=model.grid,
        pixels=np.stack(pixels),
        model=model.model_name,
        target=name,
        neighbourhood=neighbourhood,
        blank=blank_name(model, blank, seed),
        seed=seed,
        runs=values.shape[1],
        passes=round(passes, 3),
        **attributes,
    )


def _ranked(model: HookedViT, image: Any, target: Target, where: dict[str, Any]) -> list[tuple[int, int]]:
    found = caap(model, image, target.given, progress=False, **where)
    return (found[0] if isinstance(found, list) else found).rank()


def _recorded(model: HookedViT, parts: Sequence[Part]) -> tuple[list[str], list[int]]:
    """Hook points and layers that the run on the image has to record."""
    sites = [(patch.name, site.layer) for part in parts for patch in part for site in patch.sites(model)]
    return list(dict.fromkeys(name for name, _ in sites)), sorted({layer for _, layer in sites if layer is not None})


def _cells(
    model: HookedViT, parts: Sequence[Part], tokens: Sequence[list[int]], source: ActivationStore, count: int
) -> list[Cell]:
    """The edits of each part at each patch; none where they cannot reach the logits."""
    known: dict[Any, Any] = {}
    cells: list[Cell] = []
    for part, own in product(parts, tokens):
        edits: list[Any] = []
        reaches = False
        for patch in part:
            placed = Patch(patch.name, patch.layers, own, source=source, heads=patch.heads)
            made, reaching = possible_edits(model, placed, count, known)
            edits += made
            reaches = reaches or reaching
        cells.append(edits if reaches else [])
    return cells


def _scores(targets: Sequence[Targets], logits: Float[Tensor, "image columns"]) -> Float[np.ndarray, "image target"]:
    return torch.stack([each.value(logits).double() for each in targets], dim=1).cpu().numpy()
