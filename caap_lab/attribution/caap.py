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
from caap_lab.checks import check_choice, check_count, check_seed
from caap_lab.engine.blanks import Blank, blank_run, check_blank
from caap_lab.engine.cnn import blank_maps, entering_maps, score_cells
from caap_lab.engine.free import score_patches_free
from caap_lab.engine.interpolation import TAILS
from caap_lab.engine.memory import Sizes, sizes_within
from caap_lab.engine.patched_runs import score_patches
from caap_lab.engine.plan import Plan
from caap_lab.engine.source import run_source
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images, check_kind, check_no_hooks
from caap_lab.models.batches import batches, check_images, is_single
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.probability import probabilities
from caap_lab.models.running import check_eval, held, runs_model
from caap_lab.models.tokens import neighbourhood_offsets, neighbourhood_table
from caap_lab.models.vit import HookedViT

CONTEXTS = ("clamped", "free", "dropped", "frozen")
ATTENTIONS = ("exact", "cached", "cached_all")
SCORES = ("logit", "prob", "logprob", "sigmoid", "logsigmoid")
SWEPT_SCORES = SCORES[:3]
"""Scores of classes that exclude each other, which `sweep_scores` compares."""
DEFAULT_CUTOFF = 2 / 3
"""Share of blocks patched by default. The paper's own value could not be recovered; see the docs, page CAAP."""
DEFAULT_MEMORY = 1.0
"""Bound on a Vision Transformer's run, in GiB."""
DEFAULT_CELLS = 32
"""Runs of a CNN at once."""


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
    max_memory: float | None = None,
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
        tail: "exact"; "shared" keeps only each patch's centre live after the cutoff, neighbouring groups lend theirs;
            "interpolated" runs a token in its own group and the outermost ones that hold it, and interpolates between
            them. For "clamped".
        score: "logit"; "prob" or "logprob", of the softmax; "sigmoid" or "logsigmoid", for a multi-label head. A head
            with one output reads its sigmoid where the softmax is asked for, and the map says so.
        seed: Seed of the noise blanks.
        chunk_size: Patches scored at once; does not change results. By default as many as `max_memory` allows; on a
            CNN 32.
        max_memory: Bound in GiB on what a run needs besides the model, the blank's run and the result; 1 by default. It
            does not change results. The approximate tails need an image's patches at once, whatever the bound.
        batch_size: Images run at once, fewer if `max_memory` says so; does not change results.
        progress: Show a progress bar for more than one image.

    Returns:
        A map for one image (a path, PIL image, tensor [3, H, W] or [1, 3, H, W]); a list of maps for a list of images
        or a tensor of several.

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    maps = caap_ranges(
        model,
        images,
        target,
        [(start, cutoff)],
        neighbourhood=neighbourhood,
        blank=blank,
        context=context,
        attention=attention,
        tail=tail,
        score=score,
        seed=seed,
        chunk_size=chunk_size,
        max_memory=max_memory,
        batch_size=batch_size,
        progress=progress,
    )
    found = [one for (one,) in maps]
    return found[0] if is_single(images) else found


@runs_model
def caap_ranges(
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None,
    ranges: Sequence[tuple[int, int | float | None]],
    *,
    score: str,
    batch_size: int,
    progress: bool,
    **options: Any,
) -> list[list[AttributionMap]]:
    """Maps of every image for several ranges (start, cutoff) of patched blocks; all other arguments are `caap`'s.

    The images run once for all maps. Where the context allows it ("clamped", "dropped"), maps with the same start share
    the blocks before their own cutoff.
    """
    starts = list(dict.fromkeys(start for start, _ in ranges))
    plans = [
        check_caap(model, score=score, start=first, cutoffs=[c for start, c in ranges if start == first], **options)
        for first in starts
    ]
    blank, seed = options["blank"], int(options["seed"])
    check_count("batch_size", batch_size)
    sizes = _sizes(model, plans, options["max_memory"], batch_size, options["chunk_size"])
    singles = check_images(images)
    targets: list[int | None] = [None] * len(singles)
    if target is None:
        model.target(0)  # a model without a classifier is refused here
    else:
        targets = [*model.targets(target, len(singles))]

    plan = plans[0]
    settings: dict[str, Any] = {"neighbourhood": plan.neighbourhood, "seed": seed, "context": plan.context}
    if model.kind == "vit":
        settings |= {"attention": plan.attention, "tail": plan.tail}
    wanted_ranges = [(int(start), _patched_blocks(model, cutoff, plan.context)) for start, cutoff in ranges]
    maps: list[list[AttributionMap]] = []
    with tqdm(total=len(singles), unit="map", disable=not progress or len(singles) == 1) as bar:
        for batch, wanted in zip(batches(model, singles, sizes.images), _split(targets, sizes.images), strict=True):
            began = time.perf_counter()
            run: Callable[..., _Patched] = _run_cnn if model.kind == "cnn" else _run_vit
            logits, own_logits, label, fingerprint = run(
                model, batch, blank, seed, plans, sizes.patches, None in wanted
            )
            if not all(part.isfinite().all() for part in logits.values()):
                raise InputError(
                    "The model gives NaN or infinity on a patched run: look for such values in its weights, for "
                    "extreme values in the image, or use dtype='float32' instead of float16."
                )
            scores = {key: scores_of(part, score).cpu() for key, part in logits.items()}
            seconds = (time.perf_counter() - began) / (len(batch) * len(scores))
            for row in range(len(batch)):
                index = wanted[row]
                if index is None:
                    assert own_logits is not None
                    index = int(own_logits[row].argmax())
                found = []
                for start, stop in wanted_ranges:
                    all_scores = scores[start, stop][row].view(*model.grid, -1)
                    found.append(
                        AttributionMap.of_model(
                            model,
                            batch[row],
                            all_scores[..., index].clone(),
                            target=index,
                            method="caap",
                            score=score_read(score, model.n_classes),
                            sign="level",
                            settings={"cutoff": stop, "start": start, **settings, "blank": label},
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
    max_memory: float | None,
) -> Plan:
    """What the engine is to compute.

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
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    if max_memory is not None:
        _check_memory(model, max_memory)
    check_seed(seed)
    with held(model):  # hooks that another thread uses at this moment are gone when it is done
        check_no_hooks(model, "CAAP's engine")
    check_eval(model)
    return Plan(first, tuple(sorted(set(stops))), neighbourhood, context, attention, tail)


def _check_memory(model: HookedModel, max_memory: float) -> None:
    if model.kind == "cnn":
        raise InputError("max_memory=... is for Vision Transformers; on a CNN, chunk_size bounds memory.")
    if isinstance(max_memory, bool) or not isinstance(max_memory, (int, float, np.number)) or not max_memory > 0:
        raise InputError(f"max_memory={max_memory!r} must be a number of GiB above 0.")


def _sizes(
    model: HookedModel, plans: list[Plan], max_memory: float | None, batch_size: int, chunk_size: int | None
) -> Sizes:
    batch_size, chunk = int(batch_size), None if chunk_size is None else int(chunk_size)  # NumPy's numbers too
    if not isinstance(model, HookedViT):
        return Sizes(batch_size, chunk or DEFAULT_CELLS)
    return sizes_within(model, plans, float(max_memory or DEFAULT_MEMORY), batch_size, chunk)


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


_Patched = tuple[dict[tuple[int, int], Tensor], Tensor | None, str, str]
"""Logits [image, patch, classes] of the patched runs by (start, cutoff); the images' own if asked for; the blank's
label; the model's fingerprint."""


def _run_vit(
    model: HookedViT,
    batch: Tensor,
    blank: Blank,
    seed: int,
    plans: list[Plan],
    chunk_size: int,
    own_logits: bool,
) -> _Patched:
    run = blank_run(model, blank, seed)  # kept with the model after the first time
    ranges = [(plan.start, cutoff) for plan in plans for cutoff in plan.cutoffs]
    source = run_source(model, batch, plans[0].context, ranges, own_logits)
    found = {}
    for plan in plans:
        score = score_patches_free if plan.context == "free" else score_patches
        for cutoff, part in zip(plan.cutoffs, score(model, run, source, plan, chunk_size), strict=True):
            found[plan.start, cutoff] = part
    return found, source.logits, run.label, run.fingerprint


def _run_cnn(
    model: HookedCNN,
    batch: Tensor,
    blank: Blank,
    seed: int,
    plans: list[Plan],
    chunk_size: int,
    own_logits: bool,
) -> _Patched:
    (plan,) = plans  # sweeps over ranges are for Vision Transformers
    table = neighbourhood_table(model.grid, plan.neighbourhood)
    empty, label = blank_maps(model, blank, seed, plan.start)
    sources, own = entering_maps(model, batch, plan.start, max(plan.cutoffs), own_logits)
    found = {}
    for cutoff in plan.cutoffs:
        patched = sources[: max(0, cutoff - plan.start)]
        found[plan.start, cutoff] = score_cells(model, empty, patched, len(batch), table, plan.start, chunk_size)
    return found, own, label, model.fingerprint


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
    if score == "logit":
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
    return probabilities(logits, "sigmoid" if "sigmoid" in score else "auto", log=score.startswith("log"))


def score_read(score: str, n_classes: int) -> str:
    """What is read where a score is asked for: sigmoids for a head with one output, whose softmax is always 1."""
    return {"prob": "sigmoid", "logprob": "logsigmoid"}.get(score, score) if n_classes == 1 else score
