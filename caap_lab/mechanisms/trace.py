"""Causal tracing: which activations carry the difference between two images, by patching from one run into the other.

Vig et al. 2020 (arXiv 2004.12265), Meng et al. 2022 (arXiv 2202.05262), Heimersheim & Nanda 2024 (arXiv 2404.15255).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from caap_lab.checks import check_choice
from caap_lab.mechanisms.pairs import DIRECTIONS, pairs_of
from caap_lab.mechanisms.trace_cells import trace_cells
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.mechanisms.trace_runs import run_places
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT


@runs_model
def trace(
    model: HookedViT,
    clean: Images,
    corrupted: Images,
    target: Any = None,
    *,
    points: str | Sequence[str] = "resid_pre",
    by: str = "token",
    direction: str = "denoise",
    layers: int | Iterable[int] | None = None,
    heads: int | Sequence[int] | None = None,
    tokens: Any = None,
    masks: Any = None,
    window: int = 1,
    batch_size: int = 32,
    progress: bool = True,
) -> Trace:
    """The effect of patching activations of one image into the run of another, for each token, region, head or layer.

    ```python
    traced = cl.trace(model, photo, cl.corrupt(model, photo, "blur", masks=dog), points="resid_pre")
    traced                                                       # one small picture per layer
    cl.trace(model, photo, other, points="z", by="head").plot()  # layer x head
    ```

    The effect of a patch is (patched - corrupted) / (clean - corrupted), with the target's scores in the patched, the
    corrupted and the clean run: 0 is the corrupted image's score and 1 the clean image's, in both directions. A patch
    without effect has the value 0 for "denoise" and 1 for "noise".

    Args:
        model: The model.
        clean: Images.
        corrupted: As many images in the same order, or one for all: other images, or the output of `cl.corrupt`. One
            clean image with many corrupted ones is also valid.
        target: What is scored: a class, `cl.contrast(a, b)`, a direction or a function of the logits; one for all
            pairs, or one per pair. Several by name, {"name": target, ...}, are read in one pass and become the last
            axis. By default, the logit of the clean image's predicted class minus that of the corrupted image's; if
            both predictions are the same, minus the mean of all classes.
        points: Hook points inside the blocks: "resid_pre", "attn_out", "mlp_out", "z" or another name; several become
            an axis.
        by: What a cell is, in each layer: a "token", a "region" (an object's tokens, see `masks`), a "head" (of z, q,
            k, v, result, attn_scores or pattern) or the complete "layer".
        direction: "denoise" patches clean activations into the corrupted run: which are sufficient to restore the
            score. "noise" patches corrupted activations into the clean run: which are necessary for it.
        layers: Layers of the axis; None for all.
        heads: Heads of the axis by="head"; otherwise the heads that are patched. None for all.
        tokens: Tokens of the axis by="token"; otherwise the tokens that are patched, as `Patch` accepts them. None for
            all.
        masks: For by="region", for each pair a bool mask [H, W] of an object at the resolution of the model's input, or
            a list or dict of them (the same objects in all pairs). A patch belongs to the object that covers most of
            it, at least half; the others are "rest", and class, distillation and register tokens are "prefix tokens".
        window: Number of layers that are patched together around the layer of the axis: 3 is the layer with the one
            before and the one after; of an even number, one more is before it. Clipped at both ends of the model.
        batch_size: Rows run at once: cells times pairs. More pairs than that are run in chunks.
        progress: Show a progress bar.

    Returns:
        Effects and scores, image first, with means, standard errors, `p`, tables and pictures; see `Trace`.

    Raises:
        InputError: an argument is invalid, or the two scores of a pair (nearly) agree, so that there is no scale;
            raised before any patched run.
    """
    check_kind(model, "trace")
    check_choice("direction", direction, DIRECTIONS)
    count = max(len(check_images(clean)), len(check_images(corrupted)))
    cells = trace_cells(model, count, points, by, layers, window, masks, heads, tokens)
    pairs = pairs_of(model, clean, corrupted, target, batch_size)
    pairs.require_apart()
    runs = run_places(pairs, [[place] for place in cells.places], direction, batch_size, progress)
    return Trace.of(pairs, cells, runs, direction=direction, by=by, window=window)
