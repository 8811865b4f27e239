"""Logits of the patched contexts of a batch of images, for any model and context."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.engine.blanks import Blank, BlankRun, blank_run
from caap_lab.engine.cnn import blank_maps, entering_maps, maps_from, score_cells
from caap_lab.engine.free import score_patches_free
from caap_lab.engine.memory import Sizes, sizes_within
from caap_lab.engine.patched_runs import score_patches
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.removal import as_source, run_receiver
from caap_lab.engine.settings import DEFAULT_CELLS, DEFAULT_MEMORY, CaapSettings
from caap_lab.engine.source import SourceRun, run_source
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
from caap_lab.models.vit import HookedViT


@dataclass(frozen=True)
class PatchedLogits:
    """The results of the patched runs of a batch."""

    by_range: dict[tuple[int, int], Float[Tensor, "image patch classes"]]
    """Logits of the patched runs by (start, cutoff)."""
    own: Float[Tensor, "image classes"] | None
    """The images' own logits, where they were asked for or patches are removed."""
    blank: str
    """Name of the blank in results."""
    fingerprint: str
    """Fingerprint of the model."""


def patched_logits(
    model: HookedModel,
    images: Float[Tensor, "image 3 height width"],
    plans: Sequence[CaapPlan],
    blank: Blank,
    seed: int,
    chunk_size: int,
    own: bool,
) -> PatchedLogits:
    """Logits of the patched contexts of all patches for every plan, from one run of each image.

    Args:
        model: A Vision Transformer or CNN without hooks.
        images: Preprocessed images.
        plans: What to compute; plans differ only in start and cutoffs. With the direction "remove" the logits are
            those of the images' runs with the blank put in.
        blank: The blank.
        seed: Seed of the noise blanks.
        chunk_size: Patches scored at once.
        own: Whether to return the images' own logits as well.

    Raises:
        InputError: a run results in NaN or infinity.
    """
    if isinstance(model, HookedCNN):
        logits = _of_cnn(model, images, plans, blank, seed, chunk_size, own)
    else:
        assert isinstance(model, HookedViT)
        run = blank_run(model, blank, seed)  # cached with the model after the first time
        logits = logits_of_vit(model, images, plans, run, chunk_size, own)
    # On a GPU this would wait for it: there the caller that reads the scores on the CPU must check.
    if model.device.type != "cuda" and not all(all_finite(part) for part in logits.by_range.values()):
        raise InputError(
            "The model returns NaN or infinity on a patched run: check its weights for such values and the image "
            "for extreme values, or use dtype='float32' instead of float16."
        )
    return logits


def sizes_of(model: HookedModel, plans: Sequence[CaapPlan], settings: CaapSettings, batch_size: int) -> Sizes:
    """Numbers of images, at most `batch_size`, and patches that run at once."""
    if not isinstance(model, HookedViT):
        return Sizes(batch_size, settings.chunk_size or DEFAULT_CELLS)
    return sizes_within(model, list(plans), settings.max_memory or DEFAULT_MEMORY, batch_size, settings.chunk_size)


def logits_of_vit(
    model: HookedViT,
    images: Float[Tensor, "image 3 height width"],
    plans: Sequence[CaapPlan],
    run: BlankRun,
    chunk_size: int,
    own: bool,
) -> PatchedLogits:
    """As `patched_logits`, for a given blank run, without waiting for a GPU."""
    if plans[0].direction == "remove":
        return _removed(model, images, plans, run, chunk_size)
    ranges = [(plan.start, cutoff) for plan in plans for cutoff in plan.cutoffs]
    source = run_source(model, images, plans[0].context, ranges, own)
    logits: dict[tuple[int, int], Tensor] = {}
    for plan in plans:
        for cutoff, part in zip(plan.cutoffs, _score(model, run, source, plan, chunk_size), strict=True):
            logits[plan.start, cutoff] = part
    return PatchedLogits(logits, source.logits, run.label, run.fingerprint)


def _score(
    model: HookedViT, receiver: BlankRun, source: SourceRun, plan: CaapPlan, chunk_size: int
) -> Float[Tensor, "cutoff image patch classes"]:
    score = score_patches_free if plan.context == "free" else score_patches
    return score(model, receiver, source, plan, chunk_size)


def _removed(
    model: HookedViT,
    images: Float[Tensor, "image 3 height width"],
    plans: Sequence[CaapPlan],
    blank: BlankRun,
    chunk_size: int,
) -> PatchedLogits:
    """The same with the runs' roles swapped: image after image, as each is a receiver of its own."""
    context = plans[0].context
    source = as_source(blank, plans)
    parts: dict[tuple[int, int], list[Tensor]] = {}
    own = []
    for image in images.split(1):
        receiver, logits = run_receiver(model, image, context)
        own.append(logits)
        for plan in plans:
            for cutoff, part in zip(plan.cutoffs, _score(model, receiver, source, plan, chunk_size), strict=True):
                parts.setdefault((plan.start, cutoff), []).append(part)
    joined = {of_range: torch.cat(images_parts) for of_range, images_parts in parts.items()}
    return PatchedLogits(joined, torch.cat(own), blank.label, blank.fingerprint)


def _of_cnn(
    model: HookedCNN,
    images: Float[Tensor, "image 3 height width"],
    plans: Sequence[CaapPlan],
    blank: Blank,
    seed: int,
    chunk_size: int,
    own: bool,
) -> PatchedLogits:
    (plan,) = plans  # sweeps over ranges are for Vision Transformers
    masks = table_masks(neighbourhood_table(model.grid, plan.neighbourhood))
    empty, label = blank_maps(model, blank, seed, plan.start)
    removes = plan.direction == "remove"
    stop = max(plan.cutoffs)
    sources, own_logits = entering_maps(model, images, plan.start, plan.start + 1 if removes else stop, own or removes)
    if removes:
        given = maps_from(model, empty, plan.start, stop)
        receivers, shown = sources[0].split(1), [given] * len(images)
    else:
        receivers, shown = [empty] * len(images), [[maps[i : i + 1] for maps in sources] for i in range(len(images))]
    logits: dict[tuple[int, int], Tensor] = {}
    for cutoff in plan.cutoffs:
        used = max(0, cutoff - plan.start)
        of_images = [
            score_cells(model, receiver, maps[:used], 1, masks, plan.start, chunk_size)
            for receiver, maps in zip(receivers, shown, strict=True)
        ]
        logits[plan.start, cutoff] = torch.cat(of_images)
    return PatchedLogits(logits, own_logits, label, model.fingerprint)
