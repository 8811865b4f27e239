"""Maps that a run's folder already holds: under another protocol or metric they are measured, not made again."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab._version import __version__
from caap_lab.attribution.map import AttributionMap
from caap_lab.bench.map_rows import row_to_map
from caap_lab.bench.plan import Trial
from caap_lab.bench.run_folder import Row
from caap_lab.models.base import HookedModel

if TYPE_CHECKING:
    import pandas as pd


def with_stored_maps(trials: Iterable[Trial], done: "pd.DataFrame") -> list[Trial]:
    """The trials, each with its map if the folder has it.

    Only maps of this version of caap_lab are used, as another one may make them differently. A metric of the user may
    read what rows do not store, such as scores of other classes: its trials get only maps that have nothing else.

    Args:
        trials: Trials to compute.
        done: Finished trials of the folder.
    """
    trials = list(trials)
    wanted = {trial.map_key for trial in trials} - {""}
    found = done[done["map_key"].isin(wanted) & done["error"].isna()]
    rows = found[["map_key", *_COLUMNS]].to_dict("records")
    maps = {row["map_key"]: row for row in rows if json.loads(row["versions"])["caap_lab"] == __version__}
    return [
        replace(trial, stored_map=row)
        if (row := maps.get(trial.map_key)) is not None and (row["map_complete"] or not trial.own_metrics)
        else trial
        for trial in trials
    ]


_COLUMNS = (
    *("method", "target", "target_name", "target_object", "grid", "scores", "map_score", "map_sign", "map_seconds"),
    *("settings", "fingerprint", "versions", "map_complete"),
)
"""Columns from which `row_to_map` makes a map, and whether it is all of it."""


def stored_map(trial: Trial, model: HookedModel, x: Float[Tensor, "1 3 height width"]) -> AttributionMap | None:
    """A trial's stored map, to the bit as it was made; None if it has none.

    Args:
        trial: The trial.
        model: Its model.
        x: Its image as the model's input.
    """
    return None if trial.stored_map is None else row_to_map(trial.stored_map, model, x[0])


def columns_of_map(trial: Trial, m: AttributionMap) -> Row:
    """Columns by which a later run finds a trial's map.

    A map is made again if a row cannot give it back: its scores are not in float32, or its target is a function.
    """
    if trial.stored_map is not None:
        return {"map_key": trial.map_key, "map_complete": bool(trial.stored_map["map_complete"])}
    exact = trial.map_key and m.scores.dtype == torch.float32 and not callable(m.target)
    return {
        "map_key": trial.map_key if exact else None,
        "map_complete": m.all_scores is None and m.standard_errors is None,
    }
