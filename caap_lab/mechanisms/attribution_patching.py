"""Attribution patching: first-order estimates of the effects of a trace by two forward passes and a backward pass.

Nanda 2023 ("Attribution Patching: Activation Patching At Industrial Scale"); AtP* of Kramar et al. 2024
(arXiv 2403.00745).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import read_activations
from caap_lab.attribution.libragrad import libragrad
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.mechanisms.first_order import estimates, hooks_of
from caap_lab.mechanisms.pairs import DIRECTIONS, default_targets, pair_targets, paired, read_targets, scored_pairs
from caap_lab.mechanisms.patch_estimates import PatchEstimates
from caap_lab.mechanisms.slopes import read_slopes
from caap_lab.mechanisms.trace_cells import TraceCells, trace_cells
from caap_lab.mechanisms.trace_runs import TraceRuns
from caap_lab.models.base import Images, check_kind
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import check_gradients, runs_model
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

CORRECTIONS = ("softmax",)
RULES = ("libra",)


@runs_model
def attribution_patching(
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
    correction: str | None = None,
    rules: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> PatchEstimates:
    """The effects that `caap_lab.trace` measures, estimated to first order: two forward passes and one backward pass.

    ```python
    quick = cl.attribution_patching(model, clean, corrupted, points="z", by="head")
    exact = cl.trace(model, clean, corrupted, points="z", by="head")
    quick.compare(exact)                    # rank correlation, and the cells that are furthest off
    ```

    A patch changes an activation from a to a'. Its effect is estimated as gradient(a) . (a' - a), summed over what is
    patched (Nanda 2023). With direction "denoise", the gradient is that of the corrupted run and a' is clean; with
    "noise", the other way round. The estimate is exact if everything between the patch and the score is linear, and
    worst where this saturates: large changes of the residual stream before a LayerNorm, attention that moves to other
    tokens.

    The result has the axes, labels and scale of `caap_lab.trace`.

    Args:
        model: The model.
        clean: Images.
        corrupted: As many images in the same order, or one for all.
        target: As for `caap_lab.trace`; each of several targets costs a backward pass.
        points: As for `caap_lab.trace`.
        by: As for `caap_lab.trace`.
        direction: "denoise" or "noise".
        layers: Layers of the axis; None for all.
        heads: As for `caap_lab.trace`.
        tokens: As for `caap_lab.trace`.
        masks: As for `caap_lab.trace`.
        correction: "softmax" treats queries and keys as AtP* does (Kramar et al. 2024, section 3.1.1): the attention
            pattern is computed with the patched query or key, and only the steps after it are linearised. For the
            points "q" and "k"; others are not changed. None for plain attribution patching.
        rules: "libra" computes the gradient by LibraGrad's rules (see `caap_lab.libragrad`): norms, gates and patterns
            are constants. Queries and keys then have no gradient except through the pattern, see `correction`. A
            balanced gradient is not a better first-order estimate: measured on photos and on the bundled world, it
            ranks tokens and heads worse than the plain gradient, and whole MLPs of a layer about as well or better
            (docs/tables/attribution_patching.md).
        batch_size: Pairs run at once.
        progress: Show a progress bar.

    Returns:
        Estimated effects and scores, image first; see `caap_lab.trace` and `PatchEstimates.compare`.

    Raises:
        InputError: an argument is invalid, the model has no gradients, or the two scores of a pair (nearly) agree.
    """
    check_kind(model, "attribution_patching")
    check_choice("direction", direction, DIRECTIONS)
    check_count("batch_size", batch_size)
    check_gradients(model, "attribution_patching")
    ones, others = paired(clean, corrupted)
    cells = trace_cells(model, len(ones), points, by, layers, 1, masks, heads, tokens)
    _check_options(cells, correction, rules)
    model, targets = pair_targets(model, target, len(ones))
    read_at = hooks_of(cells)
    parts, both = [], []
    with images_shown("attribution patching", len(ones), batch_size, progress, "pair") as bar:
        for start in range(0, len(ones), batch_size):
            rows = slice(start, min(start + batch_size, len(ones)))
            given, receiver = _in_order([model.preprocess(some[rows]) for some in (ones, others)], direction)
            with torch.no_grad():
                given_logits, source = read_activations(model, given, read_at)
            read = _Reader(model, targets, rows, given_logits, direction)
            with libragrad(model) if rules == "libra" else nullcontext():
                slopes = read_slopes(model, receiver, hooks_of(cells, correction), read)
            with torch.no_grad():
                found = estimates(model, cells, dict(zip(read_at, source, strict=True)), slopes, correction, rows)
            parts.append(found.double().cpu().numpy())
            both.append([given_logits.cpu(), slopes.logits.cpu()])
            bar.update(len(given))
    clean_logits, corrupted_logits = _in_order([torch.cat(each) for each in zip(*both, strict=True)], direction)
    several = isinstance(target, Mapping)
    pairs = scored_pairs(model, ones, others, targets, clean_logits, corrupted_logits, several=several)
    pairs.require_apart()
    unpatched = pairs.corrupted_scores if direction == "denoise" else pairs.clean_scores
    runs = TraceRuns(unpatched[:, None] + np.concatenate(parts), 0.0)
    return PatchEstimates.estimated(pairs, cells, runs, direction, by, correction, rules)


def _in_order(given: Sequence[Tensor], direction: str) -> tuple[Tensor, Tensor]:
    """(clean, corrupted) as (given, receiver), and back."""
    one, other = given
    return (one, other) if direction == "denoise" else (other, one)


@dataclass(frozen=True)
class _Reader:
    """Reads the targets' scores of the receiving run; default targets depend on the predictions of both runs."""

    model: HookedViT
    targets: dict[str, Targets] | None
    rows: slice
    given_logits: Float[Tensor, "batch columns"]
    direction: str

    def __call__(self, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch target"]:
        if self.targets is None:
            clean, corrupted = _in_order((self.given_logits, logits.detach()), self.direction)
            return read_targets(default_targets(self.model, clean, corrupted), logits)
        return read_targets({name: each[self.rows] for name, each in self.targets.items()}, logits)


def _check_options(cells: TraceCells, correction: str | None, rules: str | None) -> None:
    projected = [point for point in cells.points if point in ("attn.q", "attn.k")]
    if correction is not None:
        check_choice("correction", correction, CORRECTIONS)
        if not projected:
            raise InputError(
                "correction='softmax' computes attention patterns from patched queries or keys, but these points have "
                f"none: {', '.join(cells.points)}. Use points='q' or 'k', or omit correction."
            )
    if rules is not None:
        check_choice("rules", rules, RULES)
        if projected and correction is None:
            raise InputError(
                "LibraGrad treats queries and keys as constants, so their estimates would all be 0. Use "
                "correction='softmax', which goes through the pattern's gradient, or omit rules."
            )
