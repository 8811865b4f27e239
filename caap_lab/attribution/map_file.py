"""Attribution maps in files: safetensors, without pickle, and readable by later versions."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from caap_lab.attribution.map import SIGNS, AttributionMap
from caap_lab.attribution.map_target import TARGET_FORM, target_from_json, target_to_json, vector_of
from caap_lab.digests.tensors import named_tensors_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, has_form, save_tensors
from caap_lab.models.classes import ClassNames

FORMAT = 2
_ABOUT = (
    "target",
    "target_name",
    "method",
    "score",
    "sign",
    "settings",
    "model_name",
    "fingerprint",
    "seconds",
    "versions",
)
_LATER = ("class_specific", "contrasts")
"""Fields that files of earlier versions do not have."""
_FORM = {
    "target": TARGET_FORM,
    **dict.fromkeys(("target_name", "method", "score", "sign", "model_name", "fingerprint"), str),
    "settings": dict,
    "seconds": float,
    "versions": {str: str},
    "class_names": ([[str]], None),
}
"""Types of the fields in a map file's text, which older files have as well."""


def write_map(m: AttributionMap, path: str | Path) -> Path:
    """Save a map as one file, atomically; see `AttributionMap.save`."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give a file name such as map.safetensors.")
    tensors = {"scores": m.scores, "image": m.image, **vector_of(m.target)}
    if m.all_scores is not None:
        tensors["all_scores"] = m.all_scores
    if m.standard_errors is not None:
        tensors["standard_errors"] = m.standard_errors
    names = m.class_names
    about = {
        "format": FORMAT,
        **{key: getattr(m, key) for key in _ABOUT},
        "target": target_to_json(m.target),
        **{key: getattr(m, key) for key in _LATER},
        "image_digest": m.image_digest,
        "class_names": None if names is None else [names.names, names.ids],
    }
    text = json.dumps(about)
    with atomic_path(target) as part:
        save_tensors(tensors, part, {"caap_lab": text, "digest": named_tensors_digest(text, tensors)})
    return target


def read_map(path: str | Path) -> dict[str, Any]:
    """The fields of a saved map by name.

    Raises:
        InputError: the file is missing, damaged, or not a map.
    """
    try:
        with safe_open(Path(path), framework="pt") as file:
            written = file.metadata() or {}
            about = json.loads(written["caap_lab"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (SafetensorError, KeyError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not an attribution map, or is damaged ({error}).") from None
    if not has_form(about, {}):
        raise InputError(f"{path} is not an attribution map, or is damaged (its description is missing).")
    if about.get("format") != FORMAT:
        raise InputError(
            f"{path} has map format {about.get('format')}; this version reads {FORMAT}. Make the map again."
        )
    _check_content(path, about, tensors, written)
    names = about["class_names"]
    return {
        "scores": tensors["scores"],
        "image": tensors["image"],
        "all_scores": tensors.get("all_scores"),
        "standard_errors": tensors.get("standard_errors"),
        "class_names": None if names is None else ClassNames(tuple(names[0]), tuple(names[1])),
        "image_digest": str(about.get("image_digest", "")),  # missing in earlier versions
        **{key: about[key] for key in _ABOUT},
        **{key: about[key] for key in _LATER if key in about},
        # a function is not stored in a file: a map that was read names it, and raises an error where it is needed
        "target": target_from_json(about["target"], tensors.get("direction")),
    }


def _check_content(path: str | Path, about: Any, tensors: dict[str, Tensor], written: dict[str, str]) -> None:
    """Raise InputError for a map file whose text or tensors are not those of a map, or have changed."""
    scores, image = tensors.get("scores"), tensors.get("image")
    whole = (
        has_form(about, _FORM)
        and target_from_json(about["target"], tensors.get("direction")) is not None
        and all(isinstance(about.get(key, False), bool) for key in _LATER)
        and about["sign"] in SIGNS
        and len(about["class_names"] or (0, 0)) == 2
        and scores is not None
        and scores.ndim == 2
        and image is not None
        and image.ndim == 3
        and set(written) <= {"caap_lab", "digest"}
    )
    digest = written.get("digest")  # missing in older versions
    if not whole or digest not in (None, named_tensors_digest(written["caap_lab"], tensors)):
        raise InputError(f"{path} is damaged: its content has changed since it was written. Make the map again.")
