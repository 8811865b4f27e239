"""`caap`: from an image to a map of what each patch's inner activations say for a class."""

import time
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.options import check_choice, check_eval, check_seed
from caap_lab.context.blanks import Blank, blank_run, check_blank
from caap_lab.context.cnn import blank_maps, entering_maps, score_cells
from caap_lab.context.engine import Plan, score_patches
from caap_lab.context.free import score_patches_free
from caap_lab.context.source import run_source
from caap_lab.errors import InputError
from caap_lab.hooked.base import HookedModel, Images, check_kind
from caap_lab.hooked.batches import batches, check_count, check_images, is_single
from caap_lab.hooked.cnn import HookedCNN
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.tokens import neighbourhood_offsets, neighbourhood_table

CONTEXTS = ("clamped", "free", "dropped", "frozen")
ATTENTIONS = ("exact", "cached", "cached_all")
TAILS = ("exact", "shared")
SCORES = ("logit", "prob", "logprob")
DEFAULT_CUTOFF = 2 / 3
"""Share of blocks patched by default. The paper's own value could not be recovered; see the docs, page CAAP."""


def caap(
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None = None,
    *,
    cutoff: int | float | None = None,
    start: int = 0,
    neighbourhood: str = "box1",
    blank: Blank = "white",
    context: str | None = None,
    attention: str = "exact",
    tail: str = "exact",
    score: str = "logit",
    seed: int = 0,
    chunk_size: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> AttributionMap | list[AttributionMap]:
    """Causal Attribution via Activation Patching (arXiv 2603.13652, eqs 2 and 3).

    For every patch, the residual streams of the patch and its neighbours entering blocks start to cutoff - 1 are put
    into a blank image's run, and the target's score is read. Scores of all classes come from the same pass.

    On a CNN (appendix B.3), patches are cells of `model.grid`, and the streams are the maps entering those blocks:
    block 0 reads the stem's output. All places that a cell touches count as the cell's.

    Args:
        model: A Vision Transformer or CNN; it must carry no hooks.
        images: One image, or several.
        target: Class index, WordNet id or word; one for all images or one each; None for the model's own prediction.
        cutoff: How many blocks' inputs are patched, counted from block 0: a count from 0 (none) to n_layers, or a float
            from 0 to 1 as a share of the blocks. None is two thirds.
        start: First patched block; blocks before it are the blank's own.
        neighbourhood: "none", "cross1", "box1" (3 x 3, the paper's default), "diamond2" or "box2".
        blank: "white" (default), "black", "mean", "noise", "blurred_noise", "zero_activations" (on a CNN: of the maps
            entering block `start`), `cl.blanks.mean_activations(images)` (not on a CNN), or any image.
        context: What the other tokens do. "clamped" (default): keys and values of blank tokens stay the blank run's.
            "free": they evolve and take up patched information (one forward pass a patch); the only one on a CNN, and
            the default there. "dropped": after the cutoff the patched tokens are the blank's again. "frozen": the
            patched tokens stay the source's in all blocks from `start`, so that `cutoff` has no effect.
        attention: "exact"; "cached" is E-CAAP (appendix B.1): blank attention from the blank's own queries, S_i's part
            subtracted; "cached_all" keeps one constant for all blank tokens. For "clamped".
        tail: "exact"; "shared" keeps only each patch's centre live after the cutoff, neighbouring groups lend theirs.
            For "clamped".
        score: "logit", "prob" or "logprob".
        seed: Seed of the noise blanks.
        chunk_size: Patches scored at once; bounds memory, does not change results. By default 256, or 32 for "free",
            where each is a whole sequence.
        batch_size: Images run at once; does not change results.
        progress: Show a progress bar for more than one image.

    Returns:
        A map for one image (a path, PIL image, tensor [3, H, W] or [1, 3, H, W]); a list of maps for a list of images
        or a tensor of several.

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    maps = caap_cutoffs(
        model,
        images,
        target,
        [cutoff],
        start=start,
        neighbourhood=neighbourhood,
        blank=blank,
        context=context,
        attention=attention,
        tail=tail,
        score=score,
        seed=seed,
        chunk_size=chunk_size,
        batch_size=batch_size,
        progress=progress,
    )
    found = [one for (one,) in maps]
    return found[0] if is_single(images) else found


def caap_cutoffs(
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None,
    cutoffs: Sequence[int | float | None],
    *,
    score: str,
    batch_size: int,
    progress: bool,
    **options: Any,
) -> list[list[AttributionMap]]:
    """Maps of every image for several cutoffs from one pass; arguments are `caap`'s, all of them given.

    Where the context allows it ("clamped", "dropped"), the maps share the blocks before their own cutoff.
    """
    plan, chunk_size = check_caap(model, score=score, cutoffs=cutoffs, **options)
    neighbourhood, blank, seed = options["neighbourhood"], options["blank"], int(options["seed"])
    check_count("batch_size", batch_size)
    singles = check_images(images)
    targets: list[int | None] = [None] * len(singles)
    if target is None:
        model.target(0)  # a model without a classifier is refused here
    else:
        targets = [*model.targets(target, len(singles))]

    settings: dict[str, Any] = {
        "start": plan.start,
        "neighbourhood": neighbourhood,
        "seed": seed,
        "context": plan.context,
    }
    if model.kind == "vit":
        settings |= {"attention": plan.attention, "tail": plan.tail}
    table = neighbourhood_table(model.grid, neighbourhood)
    fingerprint = model.fingerprint
    wanted_cutoffs = [_patched_blocks(model, cutoff, plan.context) for cutoff in cutoffs]
    maps: list[list[AttributionMap]] = []
    with tqdm(total=len(singles), unit="map", disable=not progress or len(singles) == 1) as bar:
        for batch, wanted in zip(batches(model, singles, batch_size), _split(targets, batch_size), strict=True):
            began = time.perf_counter()
            with torch.autocast(model.device.type, enabled=False):  # all runs in the model's own format
                run: Callable[..., _Patched] = _run_cnn if model.kind == "cnn" else _run_vit
                patched = run(model, batch, blank, seed, table, plan, chunk_size, None in wanted)
            logits, own_logits, label = patched
            if not logits.isfinite().all():
                raise InputError(
                    "The model gives NaN or infinity on a patched run: look for such values in its weights, for "
                    "extreme values in the image, or use dtype='float32' instead of float16."
                )
            scores = scores_of(logits, score).cpu()
            seconds = (time.perf_counter() - began) / (len(batch) * len(plan.cutoffs))
            for row in range(len(batch)):
                index = wanted[row]
                if index is None:
                    assert own_logits is not None
                    index = int(own_logits[row].argmax())
                found = []
                for stop in wanted_cutoffs:
                    all_scores = scores[plan.cutoffs.index(stop), row].view(*model.grid, -1)
                    found.append(
                        AttributionMap.of_model(
                            model,
                            batch[row],
                            all_scores[..., index].clone(),
                            target=index,
                            method="caap",
                            score=score,
                            sign="level",
                            settings={"cutoff": stop, **settings, "blank": label},
                            seconds=seconds,
                            fingerprint=fingerprint,
                            all_scores=all_scores,
                        )
                    )
                maps.append(found)
                bar.update()
    return maps


def check_caap(
    model: HookedModel,
    *,
    cutoffs: Sequence[int | float | None],
    start: int,
    neighbourhood: str,
    blank: Blank,
    context: str | None,
    attention: str,
    tail: str,
    score: str,
    seed: int,
    chunk_size: int | None,
) -> tuple[Plan, int]:
    """What the engine is to compute, and the patches scored at once.

    Raises:
        InputError: options do not fit the model or each other, or the model is not ready to run.
    """
    check_kind(model, "caap", ("vit", "cnn"))
    if context is None:
        context = "free" if model.kind == "cnn" else "clamped"
    stops = [_patched_blocks(model, cutoff, context) for cutoff in cutoffs]
    first = _first_block(model, start, min(stops))
    check_choice("context", context, CONTEXTS)
    check_choice("attention", attention, ATTENTIONS)
    check_choice("tail", tail, TAILS)
    check_choice("score", score, SCORES)
    if model.kind == "cnn" and (context, attention, tail) != ("free", "exact", "exact"):
        raise InputError(
            f"context={context!r}, attention={attention!r}, tail={tail!r}: {model.model_name} is a CNN, where CAAP "
            "runs in the free context and has no attention to approximate; leave the three out."
        )
    if context != "clamped" and (attention, tail) != ("exact", "exact"):
        raise InputError(f"attention={attention!r} and tail={tail!r} approximate context='clamped', not {context!r}.")
    if context == "dropped" and isinstance(model, HookedViT) and not model.spec.live_prefix:
        raise InputError(
            "context='dropped' puts all patch tokens back to the blank, and this model has no class token to remember "
            "them: its map would be constant."
        )
    neighbourhood_offsets(neighbourhood)
    check_blank(blank)
    if chunk_size is None:
        chunk_size = 32 if context == "free" else 256
    check_count("chunk_size", chunk_size)
    check_seed(seed)
    if model.has_hooks():
        raise InputError(
            "The model carries hooks, which CAAP's engine would not run as they are meant; call model.reset_hooks() "
            "and remove torch hooks first."
        )
    check_eval(model)
    return Plan(first, tuple(sorted(set(stops))), context, attention, tail), int(chunk_size)


def cutoff_blocks(cutoff: int | float | None, n_layers: int) -> int:
    """Number of patched blocks for a count, a share from 0 to 1, or None for the default share.

    A share above 0 patches one block at least.
    """
    if cutoff is None:
        cutoff = DEFAULT_CUTOFF
    if isinstance(cutoff, bool) or not isinstance(cutoff, (int, float, np.integer, np.floating)):
        raise InputError(f"cutoff={cutoff!r} is neither a number of blocks nor a share of them.")
    if isinstance(cutoff, (float, np.floating)):
        if not 0 <= cutoff <= 1:
            raise InputError(
                f"cutoff={cutoff} is a share of the blocks and must lie from 0 to 1; use an int for a count."
            )
        return max(1, round(cutoff * n_layers)) if cutoff else 0
    count = int(cutoff)
    if not 0 <= count <= n_layers:
        raise InputError(
            f"cutoff={cutoff} must lie from 0 (patch nothing) to {n_layers}, the model's number of blocks."
        )
    return count


_Patched = tuple[Tensor, Tensor | None, str]
"""Logits [cutoff, image, patch, classes] of the patched runs, the images' own if asked for, and the blank's label."""


def _run_vit(
    model: HookedViT,
    batch: Tensor,
    blank: Blank,
    seed: int,
    table: Tensor,
    plan: Plan,
    chunk_size: int,
    own_logits: bool,
) -> _Patched:
    run = blank_run(model, blank, seed)  # kept with the model after the first time
    source = run_source(model, batch, plan.context, plan.start, plan.cutoffs, own_logits)
    if plan.context == "free":
        parts = [
            score_patches_free(model, run, source, table, plan.start, cutoff, chunk_size) for cutoff in plan.cutoffs
        ]
        return torch.stack(parts), source.logits, run.label
    return score_patches(model, run, source, table, plan, chunk_size), source.logits, run.label


def _run_cnn(
    model: HookedCNN,
    batch: Tensor,
    blank: Blank,
    seed: int,
    table: Tensor,
    plan: Plan,
    chunk_size: int,
    own_logits: bool,
) -> _Patched:
    empty, label = blank_maps(model, blank, seed, plan.start)
    sources, own = entering_maps(model, batch, plan.start, max(plan.cutoffs), own_logits)
    parts = [
        score_cells(model, empty, sources[: max(0, cutoff - plan.start)], len(batch), table, plan.start, chunk_size)
        for cutoff in plan.cutoffs
    ]
    return torch.stack(parts), own, label


def _patched_blocks(model: HookedModel, cutoff: int | float | None, context: str) -> int:
    stop = cutoff_blocks(cutoff, model.n_layers)
    return model.n_layers if context == "frozen" and stop > 0 else stop


def _first_block(model: HookedModel, start: int, stop: int) -> int:
    if not isinstance(start, Integral) or isinstance(start, bool) or not 0 <= start < model.n_layers:
        raise InputError(f"start={start!r} must be a whole number from 0 to {model.n_layers - 1}.")
    start = int(start)
    if start and start >= stop:
        raise InputError(f"start={start} leaves no block to patch before cutoff={stop}.")
    return start


def _split(values: list[int | None], size: int) -> Iterator[list[int | None]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]


def scores_of(logits: Float[Tensor, "*cell classes"], score: str) -> Float[Tensor, "*cell classes"]:
    """Scores of some kind from logits, in fp32 at least."""
    kept = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if score == "prob":
        return kept.softmax(dim=-1)
    return kept.log_softmax(dim=-1) if score == "logprob" else kept
