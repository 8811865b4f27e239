"""One cell: a map, and the metrics asked of it."""

import platform
import time
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import attribute
from caap_lab.bench.plan import Cell
from caap_lab.bench.spec import Spec
from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.hooked.base import HookedModel
from caap_lab.hooked.load import load_model
from caap_lab.metrics.localisation import localisation
from caap_lab.metrics.perturbation import insertion_deletion

Row = dict[str, Any]


def compute(cell: Cell, model: HookedModel, images: ImageSet, batch_size: int) -> Row:
    """The cell's row.

    Raises:
        InputError: the image, the method or the mask cannot be used; other errors come from the model's run.
    """
    sample = images.named(cell.image)
    x = model.preprocess(sample.image)
    target = label_of(sample, images, model) if cell.target == "label" else None
    m = attribute(model, x, cell.method.name, target, progress=False, **cell.method.options)
    assert isinstance(m, AttributionMap)
    return evaluate(cell, model, sample, x, m, batch_size)


def evaluate(
    cell: Cell,
    model: HookedModel,
    sample: Sample,
    x: Tensor,
    m: AttributionMap,
    batch_size: int,
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> Row:
    """The row of a cell whose map is there.

    Args:
        cell: What was asked.
        model: The model.
        sample: The image, with its masks.
        x: The image as the model's input.
        m: Its map.
        batch_size: Changed images run at once.
        mask: The object's pixels as the model sees them, in place of the sample's regions.
    """
    began = time.perf_counter()
    row: Row = {
        **about(cell),
        "target": m.target,
        "target_name": m.target_name,
        "label": sample.label,
        "grid": list(m.grid),
        "scores": m.scores.flatten().tolist(),
        "map_seconds": m.seconds,
        "settings": m.settings,
        "fingerprint": m.fingerprint,
        "versions": {**m.versions, "python": platform.python_version()},
        "machine": f"{platform.node()}, {model.device}, {str(model.dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} threads",
    }
    if "faithfulness" in cell.metrics:
        curves = insertion_deletion(model, x, m, protocol=cell.protocol, batch_size=batch_size)
        assert not isinstance(curves, list)
        row |= {
            "insertion": curves.insertion,
            "deletion": curves.deletion,
            "insdel": curves.insdel,
            "shares": curves.shares.tolist(),
            "insertion_curve": curves.insertion_curve.tolist(),
            "deletion_curve": curves.deletion_curve.tolist(),
        }
    if "localisation" in cell.metrics:
        inside, ignored, which = (mask, None, "given") if mask is not None else _seen(model, sample.regions, m.target)
        found = localisation(m, inside, ignored=ignored)
        row |= {
            "aupr1": found.aupr1,
            "aupr0": found.aupr0,
            "pointing": found.pointing,
            "pointing_expected": found.pointing_expected,
            "mass_inside": found.mass_inside,
            "prevalence": found.prevalence,
            "mask": which,
        }
    return row | {"seconds": m.seconds + time.perf_counter() - began}


def failure(cell: Cell, error: BaseException) -> Row:
    """The row of a cell that could not be computed."""
    return {**about(cell), "error": f"{type(error).__name__}: {error}"}


def about(cell: Cell) -> Row:
    """What every row says of its cell."""
    return {
        "key": cell.key,
        "model": cell.model.text,
        "method": cell.method.text,
        "data": cell.source,
        "image": cell.image,
        "protocol": cell.protocol.to_dict() if "faithfulness" in cell.metrics else None,
        "target_rule": cell.target,
    }


@lru_cache(maxsize=1)  # cells come model after model
def model_of(text: str, device: str) -> HookedModel:
    """A model from its spec's text, loaded once."""
    from caap_lab.bench.spec import parse_spec

    spec: Spec = parse_spec(text)
    return load_model(spec.name, **{"device": device, **spec.options})


@lru_cache(maxsize=4)
def images_of(source: str) -> ImageSet:
    """A data set, opened once."""
    return open_images(source)


def label_of(sample: Sample, images: ImageSet, model: HookedModel) -> int:
    """The image's class as the model counts it.

    Raises:
        InputError: there is no label, or the data set counts other classes than the model.
    """
    if sample.label is None or images.class_names is None:
        raise InputError(f"{sample.name} has no label; use target='prediction'.")
    if len(images.class_names) != model.n_classes:
        raise InputError(
            f"{images.source} counts {len(images.class_names)} classes and {model.model_name} has {model.n_classes}; "
            "use target='prediction'."
        )
    return sample.label


def _seen(model: HookedModel, regions: Regions, target: int) -> tuple[Tensor, Tensor | None, str]:
    """The object's pixels and those to ignore as the model sees them, and which object."""
    masked, which = _object(regions, target)
    ignored = None if regions.ignored is None else model.preprocessing.mask(regions.ignored)
    return model.preprocessing.mask(masked), ignored, which


def _object(regions: Regions, target: int) -> tuple[np.ndarray, str]:
    """The target's pixels where its class is annotated, else the pixels of all objects; and which."""
    if target in regions.masks:
        return regions.masks[target], "target"
    return np.logical_or.reduce(list(regions.masks.values())), "all objects"
