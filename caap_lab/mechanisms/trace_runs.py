"""The patched runs of a trace: activations of one image of a pair inserted into the run of the other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from caap_lab.activations.cells import Cell, CellRuns
from caap_lab.activations.patch import Known, possible_edits
from caap_lab.activations.record import record
from caap_lab.activations.store import ActivationStore
from caap_lab.mechanisms.pairs import PairBatch, Pairs
from caap_lab.mechanisms.trace_cells import TracePlace
from caap_lab.models.at_once import images_at_once


class TraceRuns(NamedTuple):
    """The return value of `run_places`."""

    values: Float[np.ndarray, "image cell target"]
    """Scores of the patched runs."""
    passes: float
    """Cost of these runs, in forward passes of one image."""


@torch.no_grad()
def run_places(
    pairs: Pairs, cells: Sequence[Sequence[TracePlace]], direction: str, batch_size: int, progress: bool
) -> TraceRuns:
    """Insert the activations of each cell's places together, and compute the targets' scores.

    A cell that cannot change the logits does not run: tokens of the last block that the head does not read, after its
    attention.

    Args:
        pairs: The pairs.
        cells: One or more places per cell.
        direction: "denoise" puts clean activations into the corrupted run, "noise" corrupted ones into the clean run.
        batch_size: Rows run at once: cells times pairs.
        progress: Show a progress bar.
    """
    model = pairs.model
    unpatched = pairs.corrupted_scores if direction == "denoise" else pairs.clean_scores
    values = np.repeat(unpatched[:, None], len(cells), axis=1)
    size = images_at_once(model, batch_size)
    layers = sorted({layer for cell in cells for place in cell for layer in place.layers})
    points = list(dict.fromkeys(place.point for cell in cells for place in cell))
    passes = 0.0
    with tqdm(total=len(cells) * -(-len(pairs) // size), desc="trace", unit="cell", disable=not progress) as bar:
        for pair in pairs.batches(size):
            given, receiver = (pair.clean, pair.corrupted) if direction == "denoise" else (pair.corrupted, pair.clean)
            source = record(
                model, given, points, layers=layers, device=model.device, batch_size=batch_size, progress=False
            )
            passes += len(given) * (layers[-1] + 1) / model.spec.n_layers
            made = list(_cells(pairs, cells, source, pair))
            run = [place for place, edits in enumerate(made) if edits]
            bar.update(len(made) - len(run))
            runs = CellRuns(model, receiver, batch_size)
            for places, logits in runs.logits([made[place] for place in run]):
                scores = torch.stack([pairs.read(cell, pair.rows) for cell in logits], dim=1)
                values[pair.rows, [run[place] for place in places]] = scores.double().cpu().numpy()
                bar.update(len(places))
            passes += runs.passes
    return TraceRuns(values, passes)


def _cells(
    pairs: Pairs, cells: Sequence[Sequence[TracePlace]], source: ActivationStore, pair: PairBatch
) -> Iterator[Cell]:
    """The edits of every cell for some pairs; none where they cannot change the logits."""
    known: Known = {}
    for cell in cells:
        edits, reaches = [], False
        for place in cell:
            if not place.is_empty(pair.rows):
                made, reaching = possible_edits(pairs.model, place.patch(source, pair.rows), len(pair.clean), known)
                edits += made
                reaches = reaches or reaching
        yield edits if reaches else []
