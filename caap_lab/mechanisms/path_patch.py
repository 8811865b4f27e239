"""Path patching: the direct effect of one part of the model on a later one, and through it on the target's score."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.activations.labelled import labelled_dataset
from caap_lab.activations.patch import Patch, token_mask
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.mechanisms.nodes import NodeSet, receivers_of, senders_of
from caap_lab.mechanisms.pairs import DIRECTIONS, PairBatch, Pairs, pairs_of
from caap_lab.mechanisms.path_effects import PathEffects
from caap_lab.mechanisms.path_runs import PathRuns, first_block
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import Images, check_kind
from caap_lab.models.running import check_gradients, runs_model
from caap_lab.models.vit import HookedViT
from caap_lab.models.watched import check_no_hooks


@runs_model
@torch.no_grad()
def path_patch(
    model: HookedViT,
    clean: Images,
    corrupted: Images,
    senders: Any,
    receivers: Any,
    target: Any = None,
    *,
    direction: str = "noise",
    tokens: Any = None,
    screen: int | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> PathEffects:
    """The effect of a sender that reaches a receiver directly, and through it the target's score.

    ```python
    paths = cl.path_patch(model, clean, corrupted, "heads", "logits")       # which heads write to the logits?
    paths = cl.path_patch(model, clean, corrupted, "all", ["9.1.q", "9.1.k", "9.1.v"])      # what does head 9.1 read?
    paths.edges(10)                                                         # a table; paths.graph() is a picture
    ```

    Path patching as in Goldowsky-Dill et al. 2023 (arXiv 2304.05969) and Wang et al. 2023 (arXiv 2211.00593), in four
    runs: the base run and the other run are recorded; in the third, the sender has the activations of the other run,
    all attention outputs and MLPs are frozen at the base run, and the resulting activation of the receiver is recorded;
    the fourth is the base run again with this activation of the receiver, and everything after it is recomputed. So the
    sender's change reaches the receiver through the residual stream only; the receiver, including its LayerNorm, is
    recomputed, and so is everything that reads the receiver. For the receiver "logits", the final norm and the head are
    recomputed.

    Here, the third run is a sum of recorded activations, and the fourth starts at the receiver's block: the attribute
    `passes` of the result's `data` is the number of forward passes that ran, `plain_passes` the number for four
    complete runs per path.

    Args:
        model: The model.
        clean: Images.
        corrupted: As many images, in the same order, or one for all.
        senders: "3.1" (head 1 of layer 3), "mlp 4", "attn 4" (all heads of a layer), "embed" (the input of block 0),
            also as ("head", 3, 1), ("mlp", 4); or a list of these; or "all", "heads", "mlps". A list within the list is
            patched jointly; a mapping names such a group: {"early": ["0.0", "0.1"]}.
        receivers: The same with "3.1.q", "3.1.k", "3.1.v" and "logits"; "3.1" is all three jointly. "all" and "heads"
            have separate queries, keys and values. Each receiver is a separate path; those in a list within the list
            are replaced in one fourth run, as a set of paths. If "logits" is in such a set, the sender's own change is
            added to the input of the head.
        target: What is explained, one for all pairs or one per pair, or a mapping from a name to a target; see
            `caap_lab.contrast`. None: the clean image's predicted class rather than the corrupted image's.
        direction: "noise" is the usual one: the base run is the clean one, and senders come from the corrupted one.
            "denoise": the base run is the corrupted one.
        tokens: Positions at which the change passes, as in `Patch`, for example `cl.tokens.cls()`; None for all. A
            direct path stays at its position, so these are the positions of both sender and receiver.
        screen: Run only this many paths, those with the largest estimate (mean absolute value over pairs) by
            attribution patching of the fourth run: the receiver's change times the score's gradient at the receiver.
            Direct paths to the logits do not need a run and are always exact. None runs all.
        batch_size: Images run at once.
        progress: Show a progress bar.

    Returns:
        Effects [image, sender, receiver]: the score with the path patched minus the base run's. With direction "noise",
        a negative effect means that the path supports the target.

    Raises:
        InputError: the model has no such sender or receiver, no path leads from any sender to any receiver, or the
            model has hooks.
    """
    check_kind(model, "path_patch")
    check_choice("direction", direction, DIRECTIONS)
    check_count("batch_size", batch_size)
    check_no_hooks(model, "path_patch")
    if screen is not None:
        check_count("screen", screen)
        check_gradients(model, "screen=")
    sent, received = senders_of(model.spec, senders), receivers_of(model.spec, receivers)
    reached = np.array([[sender.reaches(receiver) for receiver in received] for sender in sent])
    if not reached.any():
        raise InputError(
            f"No path leads from {_names(sent)} to {_names(received)}: a receiver must be after its sender, in a "
            "later layer, or for an MLP in the same one."
        )
    pairs = pairs_of(model, clean, corrupted, target, batch_size)
    mask = None if tokens is None else token_mask(model, Patch("resid_pre", tokens=tokens), len(pairs))
    work = _Paths(pairs, direction, sent, received, mask, batch_size)
    chosen, estimates = reached, None
    need_runs = reached & ~work.by_head_alone
    if screen is not None and need_runs.sum() > screen:
        estimates = work.estimates(progress)
        chosen = _strongest(estimates, screen, need_runs) | work.by_head_alone
    values, base = work.run(chosen, progress)
    return work.result(values, base, estimates, chosen, "" if tokens is None else str(tokens))


class _Paths:
    def __init__(
        self,
        pairs: Pairs,
        direction: str,
        senders: list[NodeSet],
        receivers: list[NodeSet],
        tokens: Bool[Tensor, "pair_or_one token"] | None,
        batch_size: int,
    ) -> None:
        self.pairs, self.direction, self.senders, self.receivers = pairs, direction, senders, receivers
        self.tokens = tokens
        self.batch_size = images_at_once(pairs.model, batch_size)
        self.n_layers = pairs.model.n_layers
        self.blocks_run = 0
        self.passes = 2.0  # scores of both runs

    @property
    def by_head_alone(self) -> Bool[np.ndarray, "sender receiver"]:
        """Direct paths to the logits."""
        only = [all(node.kind == "logits" for node in receiver.nodes) for receiver in self.receivers]
        return np.repeat(np.array(only)[None], len(self.senders), axis=0)

    def _runs(self, n_cells: int, progress: bool, per_batch: int) -> Iterator[tuple[slice, PathRuns, tqdm]]:
        """Batches of pairs, small enough that several cells fit into one run."""
        size = max(1, self.batch_size // min(8, n_cells))
        with tqdm(total=n_cells * len(self.pairs), desc="path patching", unit="path", disable=not progress) as bar:
            for batch in self.pairs.batches(size):
                yield batch.rows, self._both(batch), bar
        self.passes += 2 + per_batch

    def _both(self, batch: PairBatch) -> PathRuns:
        base, other = batch.clean, batch.corrupted
        if self.direction == "denoise":
            base, other = other, base
        tokens = self.tokens
        if tokens is not None and len(tokens) > 1:
            tokens = tokens[batch.rows]
        return PathRuns(self.pairs.model, base, other, tokens)

    def estimates(self, progress: bool) -> Float[np.ndarray, "image sender receiver target"]:
        """First-order estimates of all paths."""
        found = []
        n_cells = len(self.senders) * len(self.receivers)
        for rows, runs, bar in self._runs(n_cells, progress, per_batch=1):
            estimate = runs.estimates(self.senders, self.receivers, lambda logits, at=rows: self.pairs.read(logits, at))
            found.append(estimate.double().cpu().numpy())
            bar.update(n_cells * runs.n_pairs)
        return np.concatenate(found)

    def run(
        self, chosen: Bool[np.ndarray, "sender receiver"], progress: bool
    ) -> tuple[Float[np.ndarray, "image sender receiver target"], Float[np.ndarray, "image target"]]:
        """Scores with each chosen path patched, and those of the base run."""
        n_pairs, n_targets = len(self.pairs), len(self.pairs.targets)
        values = np.full((n_pairs, *chosen.shape, n_targets), np.nan)
        base = np.empty((n_pairs, n_targets))
        order = sorted(
            (first_block(self.n_layers, self.senders[row], self.receivers[column]), row, column)
            for row, column in np.argwhere(chosen).tolist()
        )
        for rows, runs, bar in self._runs(len(order), progress, per_batch=0):
            base[rows] = self.pairs.read(runs.logits, rows).double().cpu().numpy()
            per_run = max(1, self.batch_size // runs.n_pairs)
            for start, group in groupby(order, key=lambda cell: cell[0]):
                cells = [(row, column) for _, row, column in group]
                sent: dict[int, Any] = {}
                for first in range(0, len(cells), per_run):
                    some = cells[first : first + per_run]
                    sent = {row: sent[row] if row in sent else runs.sent(self.senders[row]) for row, _ in some}
                    logits = runs.scores_of(start, [(sent[row], self.receivers[column]) for row, column in some])
                    for (row, column), part in zip(some, logits.split(runs.n_pairs), strict=True):
                        values[rows, row, column] = self.pairs.read(part, rows).double().cpu().numpy()
                    bar.update(len(some) * runs.n_pairs)
        self.passes += sum(self.n_layers - start for start, _, _ in order) / self.n_layers
        return values, base

    def result(
        self,
        values: Float[np.ndarray, "image sender receiver target"],
        base: Float[np.ndarray, "image target"],
        estimates: Float[np.ndarray, "image sender receiver target"] | None,
        chosen: Bool[np.ndarray, "sender receiver"],
        tokens: str,
    ) -> PathEffects:
        """The labelled result."""
        pairs = self.pairs
        effect = values - base[:, None, None]
        apart = pairs.difference if self.direction == "denoise" else -pairs.difference
        share = effect / np.where(apart == 0, np.nan, apart)[:, None, None]
        variables = {"effect": effect, "share": share} | ({} if estimates is None else {"estimate": estimates})
        axes: dict[str, Sequence[Any]] = {
            "sender": [one.name for one in self.senders],
            "receiver": [one.name for one in self.receivers],
        }
        scores = {"clean": pairs.clean_scores, "corrupted": pairs.corrupted_scores}
        if pairs.several:
            axes["target"] = list(pairs.targets)
        else:
            variables = {name: numbers[..., 0] for name, numbers in variables.items()}
        total = sum(sender.reaches(receiver) for sender in self.senders for receiver in self.receivers)
        screened = f"{chosen.sum():,} of {total:,} paths run: direct ones to the logits, and the strongest by estimate"
        data = labelled_dataset(
            axes,
            variables,
            per_image={} if pairs.several else {name: numbers[:, 0] for name, numbers in scores.items()},
            model=pairs.model.model_name,
            quantity=f"effect of the path on the target's score ({self.direction})",
            target=pairs.target_name,
            direction=self.direction,
            tokens=tokens or "all",
            screen="" if estimates is None else screened,
            passes=len(pairs) * round(self.passes, 3),
            backward_passes=0 if estimates is None else len(pairs) * len(pairs.targets),
            plain_passes=len(pairs) * (2 + 2 * int(chosen.sum())),
        )
        if pairs.several:
            data = data.assign({name: (("image", "target"), numbers) for name, numbers in scores.items()})
        return PathEffects(data, self.senders, self.receivers)


def _strongest(
    estimates: Float[np.ndarray, "image sender receiver target"], count: int, among: Bool[np.ndarray, "sender receiver"]
) -> Bool[np.ndarray, "sender receiver"]:
    """The paths with the largest mean absolute estimate, for the target for which it is largest."""
    strength = np.where(among, np.abs(estimates).mean(axis=0).max(axis=-1), -np.inf)
    chosen = np.zeros(among.size, dtype=bool)
    chosen[np.argsort(-strength, axis=None, kind="stable")[: min(count, int(among.sum()))]] = True
    return chosen.reshape(among.shape)


def _names(given: list[NodeSet]) -> str:
    shown = ", ".join(one.name for one in given[:3])
    return shown + (f" and {len(given) - 3} more" if len(given) > 3 else "")
