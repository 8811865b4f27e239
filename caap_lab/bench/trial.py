"""The computation of one trial: a map and its metrics, as a row of the run's folder."""

import gc
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import attribute
from caap_lab.bench.identity import held, model_digest, weights_digest, weights_files
from caap_lab.bench.map_rows import map_to_row
from caap_lab.bench.pairing import with_model_classes
from caap_lab.bench.plan import Trial
from caap_lab.bench.run_folder import Row
from caap_lab.bench.stored_maps import columns_of_map, stored_map
from caap_lab.bench.target_rule import rule_text, target_by_rule
from caap_lab.data.image_set import ImageSet, Regions, Sample
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import parse_metric
from caap_lab.metrics.metric import Mask, Metric, MetricInput
from caap_lab.models.base import HookedModel
from caap_lab.models.load import load_model
from caap_lab.variant import Variant, parse_variant

GB = 2**30


def compute(trial: Trial, model: HookedModel, images: ImageSet, batch_size: int) -> Row:
    """The trial's row.

    Raises:
        InputError: the image, the method or the mask cannot be used; other errors come from the model's run.
    """
    check_model(trial, model)
    sample = read_sample(images, trial.image, trial.image_digest)
    x = model.preprocess(sample.image)
    target = target_by_rule(trial.target, model, x, sample, images)
    stored = stored_map(trial, model, x)
    m = (
        attribute(model, x, trial.method.name, target, progress=False, **trial.method.options)
        if stored is None
        else stored
    )
    assert isinstance(m, AttributionMap)
    return evaluate(trial, model, with_model_classes(sample, images, model), x, m, batch_size)


def evaluate(
    trial: Trial,
    model: HookedModel,
    sample: Sample,
    x: Float[Tensor, "1 3 height width"],
    m: AttributionMap,
    batch_size: int,
    mask: Mask | None = None,
    measured: Mapping[str, Mapping[str, Any]] | None = None,
) -> Row:
    """The row of a trial whose map is already computed.

    Args:
        trial: The trial.
        model: The model.
        sample: The image, with its masks under the model's classes.
        x: The image as the model's input.
        m: Its map.
        batch_size: Changed images run at once.
        mask: The object's pixels at the resolution of the model's input, instead of the sample's regions.
        measured: Values of metrics that are known already, by the metric's text.
    """
    began = time.perf_counter()
    row: Row = {
        **about(trial),
        **map_to_row(m),
        **columns_of_map(trial, m),
        "label": sample.label,
        "machine": f"{platform.node()}, {model.device}, {model.number_format}, {torch.get_num_threads()} threads"
        + (", compiled" if model.compiled else ""),
    }
    masked = None
    for text in trial.metrics:
        if measured is not None and text in measured:
            row |= measured[text]
            continue
        metric, variant = parse_metric(text)
        read = metric_input(metric, trial, model, x, m, batch_size)
        if metric.needs_masks:
            if masked is None:
                masked = (
                    (mask, None, "given") if mask is not None else seen_masks(model, sample.regions, m.target_class)
                )
            read = replace(read, mask=masked[0], ignored=masked[1])
            row["mask"] = masked[2]
        row |= metric.values(read, variant.options)
    return row | {"seconds": m.seconds + time.perf_counter() - began}


def metric_input(
    metric: Metric,
    trial: Trial,
    model: HookedModel,
    x: Float[Tensor, "1 3 height width"],
    m: AttributionMap,
    batch_size: int,
) -> MetricInput:
    """What a metric reads, without masks."""
    protocol = trial.protocol if metric.reads_protocol else None
    return MetricInput(model, x, m, protocol=protocol, batch_size=batch_size)


def failure(trial: Trial, error: BaseException) -> Row:
    """The row of a trial that could not be computed."""
    return {**about(trial), "error": f"{type(error).__name__}: {error}"}


def about(trial: Trial) -> Row:
    """Columns of every row that describe its trial."""
    return {
        "key": trial.key,
        "model": trial.model.text,
        "method": trial.method.text,
        "data": trial.source,
        "image": trial.image,
        "protocol": trial.protocol.to_dict() if trial.reads_protocol else None,
        "target_rule": rule_text(trial.target),
    }


def model_of(text: str, device: str) -> HookedModel:
    """A model from its spec's text; cached until another one is needed, or its files change.

    A loading error is cached, too, until `forget_failures`: loading is not tried again for every trial.
    """
    spec = parse_variant(text)
    digest = weights_digest(spec)
    key = (text, device, digest)
    if key in _failures:
        raise _failures[key].with_traceback(None)
    if key not in _held:
        forget_models()
        try:
            _check_memory(spec)
            model = load_model(spec.name, **{"device": device, **spec.options})
            if weights_digest(spec) != digest:
                raise InputError(f"The weights of {text} changed while they were read; run it again.")
        except Exception as error:
            _failures[key] = error
            error.__cause__ = error.__context__ = None  # their frames would keep what was read in memory
            raise error.with_traceback(None) from None
        _held[key] = model
    return _held[key]


_held: dict[tuple[str, str, str], HookedModel] = {}
"""The last model, by its spec's text, its device and the hash of its files: trials are sorted by model."""
_failures: dict[tuple[str, str, str], Exception] = {}


def _check_memory(spec: Variant) -> None:
    """Raise InputError for weights that exceed the free memory: reading them would end the process."""
    size = sum(path.stat().st_size for _, path in weights_files(spec))
    free = psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"Its weights have {size / GB:.1f} GB, and {free / GB:.1f} GB of memory are free. Leave the model out, or "
            "run it on a machine with more."
        )


def forget_models() -> None:
    """Release the cached model, so that there is memory for the next one."""
    _held.clear()
    forget_unused()


def forget_unused() -> None:
    """Release GPU memory that no tensor uses any more."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def forget_failures() -> None:
    """Try models again that could not be loaded, as at the beginning of a run."""
    _failures.clear()


def compute_by_name(trial: Trial, device: str, batch_size: int) -> Row:
    """The row of a trial whose model and images are known by name, as on a worker, which caches both for the next one.

    Raises:
        InputError: as `compute`; also if this machine has other weights or images than those of the plan.
    """
    model = model_of(trial.model.text, device)
    try:
        return compute(trial, model, opened(trial.source), batch_size)
    except ChangedError:  # for example since this process opened the data set
        opened.cache_clear()
        return compute(trial, model, opened(trial.source), batch_size)


opened = lru_cache(maxsize=4)(open_images)
"""A data set by its source, cached for the next trial."""


class ChangedError(InputError):
    """A model or an image is not that of the plan."""


def check_model(trial: Trial, model: HookedModel) -> None:
    """Raise ChangedError for weights that are not those of the plan.

    Raises:
        ChangedError: the model or its file was changed, or the file is different on this machine.
    """
    digest = model_digest(model) if "given" in trial.model.options else weights_digest(trial.model)
    if trial.model_digest not in ("", digest):
        raise ChangedError(
            f"The weights of {trial.model.text} are not those that this run began with: the model or its file was "
            "changed, or the file is another one on this machine. Run it again for the new weights."
        )


@lru_cache(maxsize=8)  # trials are sorted by image, and several methods need the same one
def read_sample(images: ImageSet, name: str, digest: str) -> Sample:
    """An image with what it holds, read once.

    Args:
        images: Its data set.
        name: Its name.
        digest: Its hash in the plan; empty to read it unchecked.

    Raises:
        ChangedError: it is not the image of the plan.
        InputError: it cannot be read.
    """
    try:
        sample = images.named(name)
    except InputError as error:
        raise ChangedError(str(error)) from None
    sample = held(sample)
    if digest and replace(images, samples=(sample,)).digest_of(name) != digest:
        raise ChangedError(
            f"{name} of {images.source} is not what it was when this run began: the file, its label or its mask was "
            "changed, or is another one on this machine. Run it again for the new one."
        )
    return sample


def seen_masks(model: HookedModel, regions: Regions, target: int | None) -> tuple[Mask, Mask | None, str]:
    """The object's pixels and those to ignore at the resolution of the model's input, and the name of the object."""
    masked, which = _object(regions, target)
    ignored = None if regions.ignored is None else model.preprocessing.mask(regions.ignored).numpy()
    return model.preprocessing.mask(masked).numpy(), ignored, which


def _object(regions: Regions, target: int | None) -> tuple[np.ndarray, str]:
    """The target's pixels if its class is annotated, otherwise the pixels of all objects; and which of these."""
    if target is not None and target in regions.masks:
        return regions.masks[target], "target"
    if not regions.masks:
        raise InputError("The mask marks no object.")
    return np.logical_or.reduce(list(regions.masks.values())), "all objects"
