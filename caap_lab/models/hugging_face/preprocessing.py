"""From transformers' files of image processors to `Preprocessing`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caap_lab.errors import InputError
from caap_lab.models.hugging_face.folder import PROCESSORS
from caap_lab.models.preprocess import Preprocessing

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's filter numbers."""
_KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels")
_KINDS = ("ViT", "DeiT", "Beit", "Bit", "CLIP", "Siglip", "DINOv3ViT")
"""Image processors that only resize, crop and normalise, without the suffix "ImageProcessor"."""
_WAY_OUT = "Load the model with transformers and pass it to cl.wrap with the Preprocessing that comes closest."


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """The preprocessing of the image processor in a folder, as transformers reads its file; None without a file.

    Args:
        folder: Folder with preprocessor_config.json, or with processor_config.json that contains the image processor.

    Raises:
        InputError: the file cannot be read, or asks for something that `Preprocessing` cannot do; the message says
            what.
    """
    if not any((folder / name).is_file() for name in PROCESSORS):
        return None
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # many kinds: invalid JSON, an unknown processor, custom code
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"The image processor in {folder} cannot be read: {reason} {_WAY_OUT}") from error
    return from_settings(processor.to_dict(), str(folder))


def from_settings(settings: Mapping[str, Any], where: str) -> Preprocessing:
    """The preprocessing of a transformers image processor with these settings.

    Args:
        settings: The result of the processor's `to_dict`.
        where: Where the settings come from, for messages.

    Raises:
        InputError: a setting asks for something that `Preprocessing` cannot do.
    """
    kind = str(settings.get("image_processor_type", ""))
    plain = kind.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    if plain not in _KINDS:
        raise _refused(where, f"its image processor is {kind or 'not named'}, whose steps are not known")
    for step, on in settings.items():
        if step.startswith("do_") and step not in _KNOWN_STEPS and on:
            raise _refused(where, f"{step} is on, but only resizing, cropping and normalising are supported")
    if settings.get("rescale_offset"):
        raise _refused(where, "rescale_offset is on")
    image_size, crop_pct, crop_mode = _geometry(settings, where)
    mean, std = _normalisation(settings)
    resample = settings.get("resample", 2)
    interpolation = _FILTERS.get(resample) if isinstance(resample, int) else str(resample).lower()
    if interpolation is None:
        raise _refused(where, f"resample {resample} is not one of Pillow's filters {_FILTERS}")
    return Preprocessing(image_size, mean, std, interpolation, crop_pct, crop_mode)


def _geometry(settings: Mapping[str, Any], where: str) -> tuple[tuple[int, int], float, str]:
    """Image size, crop fraction and crop mode, in timm's terms."""
    if not settings.get("do_resize"):
        raise _refused(where, "do_resize is off, so photos keep their own size, which does not fit the model")
    size = {key: value for key, value in dict(settings.get("size") or {}).items() if value is not None}
    crop = dict(settings.get("crop_size") or {}) if settings.get("do_center_crop") else {}
    cropped = (crop["height"], crop["width"]) if {"height", "width"} <= crop.keys() else None
    if set(size) == {"height", "width"}:
        resized, mode = (size["height"], size["width"]), "squash"
    elif set(size) == {"shortest_edge"} and cropped is not None and cropped[0] == cropped[1]:
        resized, mode = (size["shortest_edge"],) * 2, "center"
    else:
        cut = f", cropped to {cropped[0]} x {cropped[1]}" if cropped else ", not cropped"
        raise _refused(where, f"photos are resized to {size}{cut}, which timm's transform cannot do")
    final = cropped or resized
    shares = {_share(part, whole) for part, whole in zip(final, resized, strict=True)}
    if len(shares) > 1 or max(shares) > 1:
        raise _refused(where, f"photos of {resized[0]} x {resized[1]} are cropped unevenly to {final[0]} x {final[1]}")
    return final, shares.pop(), mode


def _share(part: int, whole: int) -> float:
    """The crop fraction `part` / `whole`, chosen so that timm recovers `whole` from it and `part`."""
    share = part / whole
    return share if math.floor(part / share) == whole else math.nextafter(share, 0)


def _normalisation(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation on the scale 0 to 1, whatever factor scales the pixels, if any."""
    factor = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    scale = 255 * factor
    scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-9) else scale
    mean, std = _three(0), _three(1)
    if settings.get("do_normalize", True):
        mean, std = _three(settings.get("image_mean")), _three(settings.get("image_std"))
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, (int, float)) else tuple(value or ())


def _refused(where: str, what: str) -> InputError:
    return InputError(f"The preprocessing in {where} is not supported: {what}. {_WAY_OUT}")
