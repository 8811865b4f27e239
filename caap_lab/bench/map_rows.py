"""Attribution maps as rows of a run's folder, and back."""

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap, Sign
from caap_lab.attribution.map_target import target_from_json, target_to_json
from caap_lab.attribution.registry import METHODS
from caap_lab.bench.run_folder import Row
from caap_lab.engine.scores import score_read
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Direction, Target
from caap_lab.variant import parse_variant


def map_to_row(m: AttributionMap) -> Row:
    """The part of a map that a row stores: all except the image and the scores of other classes."""
    return {
        "target": m.target_class,
        "target_name": m.target_name,
        "target_object": _written(m.target),
        "grid": list(m.grid),
        "scores": m.scores.flatten().tolist(),
        "map_score": m.score,
        "map_sign": m.sign,
        "map_seconds": m.seconds,
        "settings": m.settings,
        "fingerprint": m.fingerprint,
        "versions": {**m.versions, "python": platform.python_version()},
    }


def row_to_map(row: Mapping[str, Any], model: HookedModel, image: Float[Tensor, "3 height width"]) -> AttributionMap:
    """The map of a row as its method returned it, without the scores of other classes.

    Args:
        row: A row of a run's folder, of a trial that did not fail.
        model: The model that produced it.
        image: The image as the model's input.
    """
    method = parse_variant(row["method"])
    score: Any = row.get("map_score")
    sign: Any = row.get("map_sign")
    if not isinstance(score, str) or not isinstance(sign, str):  # missing values of frames are None or NaN
        score, sign = _score_and_sign(method.name, method.options, model)
    m = AttributionMap.of_model(
        model,
        image,
        torch.from_numpy(np.array(row["scores"], np.float32).reshape(tuple(row["grid"]))),
        target=_target_of_row(row, model),
        class_specific=method.name not in METHODS or METHODS[method.name].class_specific,
        method=method.name,
        score=score,
        sign=sign,
        settings=json.loads(row["settings"]),
        seconds=float(row["map_seconds"]),
        fingerprint=row["fingerprint"],
    )
    versions = json.loads(row["versions"])
    return replace(m, versions={name: version for name, version in versions.items() if name != "python"})


def _written(target: Any) -> dict[str, Any] | None:
    """A target that is not a class, with a direction's values; None for a class, which its index identifies."""
    if isinstance(target, int):
        return None
    written = target_to_json(target)
    assert isinstance(written, dict)
    if isinstance(target, Direction):
        values = target.vector.double().cpu().numpy().astype("<f8")
        written["vector"] = base64.b64encode(values.tobytes()).decode()
    return written


def _target_of_row(row: Mapping[str, Any], model: HookedModel) -> Target | int:
    """The target of a row's map; rows of earlier versions only have classes."""
    text = row.get("target_object")
    if not isinstance(text, str):  # missing values of frames are None or NaN
        return int(row["target"])
    written = json.loads(text)
    content = written.pop("vector", None)
    vector = None if content is None else torch.from_numpy(np.frombuffer(base64.b64decode(content), "<f8").copy())
    given: Any = target_from_json(written, vector)
    return Target(given, row["target_name"], model.n_classes)


def _score_and_sign(name: str, options: Mapping[str, Any], model: HookedModel) -> tuple[str, Sign]:
    """Score and sign for rows of earlier versions, which did not store them: those of the method with these options."""
    settings = {**METHODS[name].options.get(model.kind, {}), **options}
    score = score_read(settings["score"], model.n_classes) if "score" in settings else "attribution to logit"
    return score, METHODS[name].sign
