"""Several trials of one model at once: maps of several images in one call, and curves of all maps in shared batches."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS, attribute
from caap_lab.bench.pairing import with_model_classes
from caap_lab.bench.plan import Trial
from caap_lab.bench.run_folder import Row
from caap_lab.bench.stored_maps import stored_map
from caap_lab.bench.target_rule import has_probability, target_by_rule
from caap_lab.bench.trial import check_model, evaluate, failure, metric_input, read_sample
from caap_lab.data.image_set import ImageSet, Sample
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import parse_metric
from caap_lab.metrics.metric import Mask
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import TargetLike
from caap_lab.models.vit import HookedViT

IMAGES = 8
"""Largest number of images whose maps are made in one call."""
_QUICK = 64
"""Passes of a map above which a method gains nothing from several images: it fills batches with one."""
_MEMORY = 2**30
"""Bytes that several images' activations may take; one image may take more."""


def groups(trials: Iterable[Trial]) -> Iterator[list[Trial]]:
    """Trials that follow each other and can share batches, of at most `IMAGES` images.

    A direction's logit is a column that only its own model has, so that such trials stay alone.
    """
    for (*_, target), alike in groupby(trials, lambda one: (one.model.text, one.source, one.metrics, one.target)):
        group: list[Trial] = []
        for trial in alike:
            names = {one.image for one in group}
            full = len(names) == IMAGES and trial.image not in names
            if group and (full or not has_probability(target)):
                yield group
                group = []
            group.append(trial)
        yield group


def rows_of(
    group: Sequence[Trial],
    find: Callable[[], tuple[HookedModel, ImageSet]],
    batch_size: int,
    alone: Callable[[Trial], Row],
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Row]:
    """Rows of a group's trials, each as soon as its last batch is computed.

    What cannot be computed together is computed alone, so that one trial's error is not the others'.

    Args:
        group: What `groups` gives.
        find: The model and the data set; the model is not kept, so that the next one can be loaded.
        batch_size: Changed images run at once.
        alone: A trial's row, whatever happens.
        stopped: True to take no further trial; rows of those in progress still follow.
    """
    waiting = {trial.key: trial for trial in group}
    if len(group) > 1:
        with suppress(Exception):  # the trial in which it occurs fails again when it is alone, and says so
            model, images = find()
            cells = _with_maps(group, model, images, batch_size, stopped)
            for row in _measured_rows(cells, group[0].metrics, model, batch_size):
                del waiting[row["key"]]
                yield row
    for trial in waiting.values():
        if stopped():
            return
        yield alone(trial)


@dataclass(eq=False)
class Cell:
    """A trial with its map, and the metrics that are measured so far."""

    trial: Trial
    sample: Sample
    x: Float[Tensor, "1 3 height width"]
    map: AttributionMap
    mask: Mask | None = None
    """As for `evaluate`."""
    measured: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By the metric's text."""
    seconds: float = 0.0


def rows_of_maps(cells: Sequence[Cell], model: HookedModel, batch_size: int) -> list[Row]:
    """Rows of trials of one model whose maps are made; errors are recorded in them.

    Args:
        cells: The trials; of the same target and metrics.
        model: The model.
        batch_size: Changed images run at once.
    """
    rows: dict[str, Row] = {}
    target = cells[0].trial.target
    if len(cells) > 1 and (isinstance(target, int) or has_probability(target)):
        with suppress(Exception):  # the map in which it occurs fails again when it is alone, and says so
            for row in _measured_rows(cells, cells[0].trial.metrics, model, batch_size):
                rows[row["key"]] = row
    return [rows.get(cell.trial.key) or _row(cell, model, batch_size) for cell in cells]


def _measured_rows(cells: Iterable[Cell], metrics: Sequence[str], model: HookedModel, batch_size: int) -> Iterator[Row]:
    """Rows in order, with shares of batches as `seconds`; cells are taken when there is room for them in a batch."""
    for text in metrics:
        cells = _measured(cells, text, model, batch_size)
    for cell in cells:
        yield _row(cell, model, batch_size)


def _row(cell: Cell, model: HookedModel, batch_size: int) -> Row:
    """A cell's row, with the metrics that are not measured yet, or with its error."""
    try:
        row = evaluate(cell.trial, model, cell.sample, cell.x, cell.map, batch_size, cell.mask, cell.measured)
    except Exception as error:  # recorded, as for a trial alone
        return failure(cell.trial, error)
    return row | {"seconds": row["seconds"] + cell.seconds}


def _measured(cells: Iterable[Cell], text: str, model: HookedModel, batch_size: int) -> Iterator[Cell]:
    """The same cells, with a metric's values if its maps can share batches."""
    metric, variant = parse_metric(text)
    if metric.compute_all is None or metric.needs_masks:
        yield from cells
        return
    taken: deque[Cell] = deque()

    def inputs() -> Iterator[Any]:
        for cell in cells:
            taken.append(cell)
            yield metric_input(metric, cell.trial, model, cell.x, cell.map, batch_size)

    for values, seconds in metric.compute_all(inputs(), **variant.options):
        cell = taken.popleft()
        cell.measured[text] = metric.checked(values)
        cell.seconds += seconds
        yield cell


def _with_maps(
    group: Sequence[Trial], model: HookedModel, images: ImageSet, batch_size: int, stopped: Callable[[], bool]
) -> Iterator[Cell]:
    """Trials whose image and map can be had, in order; the maps of a quick method are made when one is needed."""
    check_model(group[0], model)
    inputs: dict[str, _Input] = {}
    for name, digest in {trial.image: trial.image_digest for trial in group}.items():
        with suppress(Exception):  # its trials are computed alone, and say why they fail
            sample = read_sample(images, name, digest)
            x = model.preprocess(sample.image)
            target = target_by_rule(group[0].target, model, x, sample, images)
            inputs[name] = _Input(with_model_classes(sample, images, model), x, target)
    by_method: dict[str, deque[Trial]] = {}
    for trial in group:
        if trial.image in inputs and trial.stored_map is None:
            by_method.setdefault(trial.method.text, deque()).append(trial)
    most = _at_once(model, batch_size, len(by_method))
    at_once = {text: most if _is_quick(few[0], model) else 1 for text, few in by_method.items()}
    made: dict[str, AttributionMap] = {}
    for trial in group:
        if stopped():
            return
        if trial.image not in inputs:
            continue
        sample, x, _ = inputs[trial.image]
        found = stored_map(trial, model, x)
        if found is not None:
            yield Cell(trial, sample, x, found)
            continue
        method = trial.method.text
        if trial.key not in made:
            left = by_method[method]
            few = [left.popleft() for _ in range(min(at_once[method], len(left)))]
            try:
                made |= zip((one.key for one in few), _maps(few, model, inputs, batch_size), strict=True)
            except Exception:  # one of them fails: which one is found by making them one by one
                left.extendleft(reversed(few[1:]))
                at_once[method] = 1
                if len(few) > 1:
                    with suppress(Exception):
                        made[trial.key] = _maps([trial], model, inputs, batch_size)[0]
        if trial.key in made:
            yield Cell(trial, sample, x, made.pop(trial.key))


class _Input(NamedTuple):
    """An image of a group."""

    sample: Sample
    """With its masks under the model's classes."""
    x: Float[Tensor, "1 3 height width"]
    target: TargetLike | None


def _maps(
    few: Sequence[Trial], model: HookedModel, inputs: Mapping[str, _Input], batch_size: int
) -> Sequence[AttributionMap]:
    """The maps of one method, in one call; of a single image as if it were alone."""
    method, several = few[0].method, [inputs[trial.image] for trial in few]
    if len(several) == 1:
        m = attribute(model, several[0].x, method.name, several[0].target, progress=False, **method.options)
        assert isinstance(m, AttributionMap)
        return [m]
    given = [one.target for one in several if one.target is not None]
    targets = given or None  # a rule gives a target of every image, or of none
    options = {"batch_size": min(len(few), batch_size), **method.options}
    maps = attribute(model, [one.x for one in several], method.name, targets, progress=False, **options)
    assert not isinstance(maps, AttributionMap)
    return maps


def _is_quick(trial: Trial, model: HookedModel) -> bool:
    """True for a method of this package that takes few passes; a user's own one always gets one image at a time."""
    try:
        return (
            not trial.method_digest
            and METHODS[trial.method.name].passes(ModelSize.of(model), trial.method.options) <= _QUICK
        )
    except (InputError, TypeError, ValueError, ArithmeticError):  # no number of passes, or options that fail later
        return False


def _at_once(model: HookedModel, batch_size: int, methods: int) -> int:
    """Images whose activations, with gradients, and maps, with the scores of all classes, fit into `_MEMORY`."""
    if not isinstance(model, HookedViT):
        return 1
    spec = model.spec
    tokens = spec.n_patches + 1
    layer = 3 * spec.n_heads * tokens**2 + 20 * tokens * spec.d_model
    size = 4 * (spec.n_layers * layer + methods * tokens * model.n_classes)
    return images_at_once(model, max(1, min(IMAGES, batch_size, _MEMORY // size)))
