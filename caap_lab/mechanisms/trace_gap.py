"""The check of a trace: the joint effect of its strongest cells, against the sum of their single effects."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.patch import possible_edits
from caap_lab.activations.record import record
from caap_lab.activations.store import ActivationStore
from caap_lab.mechanisms.gap import InteractionCheck
from caap_lab.mechanisms.pairs import PairBatch, Pairs
from caap_lab.mechanisms.trace_cells import TracePlace
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.mechanisms.trace_runs import run_places
from caap_lab.models.at_once import images_at_once

_AT_ONCE = 32
"""Pairs."""


@torch.no_grad()
def check_trace(traced: Trace, top: int) -> InteractionCheck:
    """See `caap_lab.interaction_check`; for several targets, the first is used."""
    pairs, places = traced.pairs, traced.cells.places
    moved = (traced.per_image - traced.unpatched).reshape(len(pairs), len(places), -1)[..., 0]
    chosen = _strongest(traced, moved.mean(axis=0), top)
    run = run_places(pairs, [[places[cell] for cell in chosen]], traced.direction, _AT_ONCE, progress=False)
    joint = (run.values[:, 0, 0] - pairs.corrupted_scores[:, 0]) / pairs.difference[:, 0] - traced.unpatched
    name = next(iter(pairs.targets))
    return InteractionCheck.of(
        joint,
        moved[:, chosen].sum(axis=1),
        _distances(pairs, [places[cell] for cell in chosen], traced.direction),
        model=traced.model_name,
        what=f"the {len(chosen)} strongest cells of a trace ({traced.data.attrs['points']}, {traced.direction})",
        unit="the score, as a share of clean less corrupted",
        target=name if pairs.several else traced.data.attrs["target"],
        compared="the trace's own effects",
        cells=str([_label(traced, cell) for cell in chosen]),
        forward_passes=run.passes + 2 * len(pairs),
        direction=traced.direction,
        window=traced.data.attrs["window"],
    )


def _strongest(traced: Trace, moved: Float[np.ndarray, " cell"], top: int) -> list[int]:
    """The cells with the largest effects; in a stream, which carries on what is inserted, each token or region once."""
    found: dict[object, int] = {}
    for cell in np.argsort(-np.abs(moved), kind="stable").tolist():
        place = traced.cells.places[cell]
        tokens = None if place.tokens is None else place.tokens.tobytes()
        stream = place.point.startswith("resid")
        key: object = (tokens,) if stream else cell
        if len(found) < top and moved[cell] != 0:
            found.setdefault(key, cell)
    return list(found.values()) or [int(np.abs(moved).argmax())]


def _label(traced: Trace, cell: int) -> dict[str, object]:
    axes = {name: labels for name, labels in traced.cells.axes.items()}
    at = np.unravel_index(cell, [len(labels) for labels in axes.values()])
    return {name: labels[int(place)] for (name, labels), place in zip(axes.items(), at, strict=True)}


def _distances(pairs: Pairs, places: Sequence[TracePlace], direction: str) -> Float[np.ndarray, " image"]:
    """Distance between the inserted activations and those that they replace, relative to the latter, for each pair."""
    model = pairs.model
    layers = sorted({layer for place in places for layer in place.layers})
    points = list(dict.fromkeys(place.point for place in places))
    found = []
    for pair in pairs.batches(images_at_once(model, _AT_ONCE)):
        given, receiver = (pair.clean, pair.corrupted) if direction == "denoise" else (pair.corrupted, pair.clean)
        source, replaced = (
            record(model, images, points, layers=layers, batch_size=_AT_ONCE, progress=False)
            for images in (given, receiver)
        )
        found.append(_distance(pairs, pair, places, source, replaced))
    return np.concatenate(found)


def _distance(
    pairs: Pairs, pair: PairBatch, places: Sequence[TracePlace], source: ActivationStore, replaced: ActivationStore
) -> Float[np.ndarray, " image"]:
    count = len(pair.clean)
    apart, size = np.zeros(count), np.zeros(count)
    for place in places:
        if place.is_empty(pair.rows):
            continue
        for site, edit in possible_edits(pairs.model, place.patch(source, pair.rows), count, {})[0]:
            before = replaced[site.hook]
            after = edit(torch.full_like(before, torch.nan), HookPoint())  # NaN where nothing is inserted
            inside = ~after.isnan()
            difference = torch.where(inside, after - before, 0).double().flatten(1).norm(dim=1)
            apart += difference.square().numpy()
            size += torch.where(inside, before, 0).double().flatten(1).norm(dim=1).square().numpy()
    return np.sqrt(apart / np.where(size > 0, size, 1))
