"""The runner of all methods: from images to maps, in batches, with a progress bar, timing and checks."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap, Seen, Sign
from caap_lab.attribution.map_target import of_all_scores
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import batches, check_images
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.explained import explained
from caap_lab.models.later import Later
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Target, TargetLike, Targets


@dataclass(frozen=True)
class BatchScores:
    """The scores that a method computed for one map of every image of a batch."""

    scores: Float[Tensor, "..."]
    """Scores of the targets, [image, row, col]; or of all classes at once, [image, row, col, classes], from which the
    runner computes the targets' scores, see `of_all_scores`. Other shapes are an error."""
    targets: Targets
    """The target of each image."""
    score: str
    """The quantity of a score; see `AttributionMap`."""
    settings: Mapping[str, Any]
    """All arguments with which the method ran, as maps record them."""
    fingerprint: str = ""
    """The model's fingerprint if the method computed it; otherwise the runner does, at a few percent of a map's
    cost."""
    of_targets: Float[Tensor, "image row col"] | None = None
    """Scores of the targets in addition to those of all classes, if the method computed them itself."""
    standard_errors: Float[Tensor, "image row col"] | None = None
    """Of the targets' scores, where the method estimates them from samples."""


@dataclass(frozen=True)
class MapJob:
    """A method with checked options, ready to run on a model."""

    method: str
    sign: Sign
    batch_size: int
    """Images per batch."""
    compute: Callable[[Float[Tensor, "image 3 height width"], Targets | None], Sequence[BatchScores]]
    """(images, targets, or None for the model's own predictions) -> scores, for each map that the method makes per
    image."""
    class_specific: bool = True
    """False if the map is the same for all targets."""
    check_target: Callable[[Target], None] = lambda target: None
    """Raises InputError for a target that does not fit the method's options."""
    passes: float | None = None
    """Approximate number of forward passes per image; None if not known."""


@runs_model
def run_maps(
    model: HookedModel,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | None,
    prepare: Callable[[HookedModel, int], MapJob],
    *,
    batch_size: int,
    progress: bool,
) -> list[list[AttributionMap]]:
    """For each image, the maps that a method makes of it.

    The model is held and runs without autocast, from the checks of `prepare` to the last map.

    Args:
        model: The model.
        images: One image, or several.
        target: The target, see `caap_lab.models.targets.TargetLike`; one for all images, or one per image; None for the
            model's own prediction.
        prepare: (model, batch_size) -> the method's job. It raises InputError for invalid options before anything runs.
        batch_size: Images run at once, or fewer if the method requires it.
        progress: Show a progress bar, for one image if it takes more than a second.

    Raises:
        InputError: an argument is invalid; or scores are not finite, or have the wrong shape.
    """
    check_count("batch_size", batch_size)
    job = prepare(model, int(batch_size))
    singles = check_images(images)
    wanted: Targets | None = None
    if target is None:
        model._require_classifier()
    else:
        given, (model, wanted) = model, explained(model, target, len(singles))
        job = job if model is given else prepare(model, int(batch_size))
        for distinct in dict.fromkeys(wanted):
            job.check_target(distinct)
    maps: list[list[AttributionMap]] = []
    under_way: list[_Batch] = []
    with (
        images_shown(job.method, len(singles), job.batch_size, progress, "map", job.passes) as bar,
        _fingerprint_read_once(model),
        _Finisher(model, job) as finisher,
    ):
        for batch in batches(model, singles, job.batch_size):
            first = len(maps) + sum(len(one.images) for one in under_way)
            targets = None if wanted is None else wanted[first : first + len(batch)]
            under_way.append(finisher.begun(batch, targets))
            if len(under_way) > finisher.later.ahead:
                maps += finisher.maps(under_way.pop(0))
                bar.update(len(maps) - bar.n)
        for last in under_way:
            maps += finisher.maps(last)
            bar.update(len(maps) - bar.n)
    return maps


@dataclass(frozen=True)
class _Batch:
    """Images whose scores are computed, or queued on a GPU."""

    images: Float[Tensor, "image 3 height width"]
    computed: Sequence[BatchScores]
    began: float
    seen: "Future[list[Seen]] | None" = None
    done: torch.cuda.Event | None = None


class _Finisher:
    """Makes maps from the scores of a batch.

    While a GPU computes the next batch, see `Later`, a thread prepares the images that maps keep.
    """

    def __init__(self, model: HookedModel, job: MapJob) -> None:
        self.model, self.job, self.later = model, job, Later(model.device)
        self._thread = ThreadPoolExecutor(1) if self.later.ahead else None
        self._ended = 0.0

    def __enter__(self) -> "_Finisher":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def begun(self, images: Float[Tensor, "image 3 height width"], targets: Targets | None) -> _Batch:
        """A batch whose scores are computed, or queued on a GPU."""
        began, there = time.perf_counter(), self.later.mark()
        seen = None if self._thread is None else self._thread.submit(self._seen, images, there)
        computed = self.job.compute(images, targets)
        return _Batch(images, computed, began, seen, self.later.mark())

    def _seen(self, images: Float[Tensor, "image 3 height width"], there: torch.cuda.Event | None) -> list[Seen]:
        with self.later.reading(there):
            return Seen.of_all(self.model, images.cpu())

    def maps(self, batch: _Batch) -> list[list[AttributionMap]]:
        """For each image of a batch, its maps.

        Raises:
            InputError: scores are not finite, or have the wrong shape.
        """
        with self.later.reading(batch.done):
            return self._maps(batch)

    def _maps(self, batch: _Batch) -> list[list[AttributionMap]]:
        model, job, count = self.model, self.job, len(batch.images)
        checked = [_checked(one, count, model.n_classes, job.method) for one in batch.computed]
        now = time.perf_counter()
        seconds = (now - max(batch.began, self._ended)) / (count * len(checked))
        self._ended = now
        fingerprint = batch.computed[0].fingerprint or model.fingerprint
        seen = [None] * count if batch.seen is None else batch.seen.result()
        maps: list[list[AttributionMap]] = []
        for row, image in enumerate(batch.images):
            maps.append([])
            for one, (scores, of_targets) in zip(batch.computed, checked, strict=True):
                target = one.targets[row]
                every_class = scores[row] if scores.ndim == 4 else None
                of_target = _of_target(row, one, scores, of_targets, job.method)
                maps[-1].append(
                    AttributionMap.of_model(
                        model,
                        image,
                        of_target.clone(),
                        target=target,
                        class_specific=job.class_specific,
                        method=job.method,
                        score=one.score,
                        sign=job.sign,
                        settings=one.settings,
                        seconds=seconds,
                        fingerprint=fingerprint,
                        all_scores=every_class,
                        seen=seen[row],
                        standard_errors=None if one.standard_errors is None else one.standard_errors[row].cpu().clone(),
                    )
                )
        return maps


@contextmanager
def _fingerprint_read_once(model: HookedModel) -> Iterator[None]:
    """Context in which the model is held and its fingerprint cached: hashing all weights may take longer than a map."""
    before = model._fingerprint_of
    model._fingerprint_of = model.fingerprint
    try:
        yield
    finally:
        model._fingerprint_of = before


def scores_of_targets(computed: BatchScores, n_classes: int, method: str) -> Float[Tensor, "image _ _"]:
    """The targets' scores of a batch, on the CPU.

    Raises:
        InputError: scores are not finite, have another shape than they should, or a target does not follow from them.
    """
    count = len(computed.targets)
    scores, of_targets = _checked(computed, count, n_classes, method)
    return torch.stack([_of_target(row, computed, scores, of_targets, method) for row in range(count)])


def _of_target(
    row: int,
    computed: BatchScores,
    scores: Float[Tensor, "image row col *classes"],
    of_targets: Float[Tensor, "image row col"] | None,
    method: str,
) -> Float[Tensor, "row col"]:
    """An image's scores of its target, from what `_checked` gives."""
    if of_targets is not None:
        return of_targets[row]
    return (
        scores[row] if scores.ndim == 3 else of_all_scores(computed.targets[row], scores[row], computed.score, method)
    )


def _checked(
    computed: BatchScores, count: int, n_classes: int, method: str
) -> tuple[Float[Tensor, "image row col *classes"], Float[Tensor, "image row col"] | None]:
    """Checked scores of `count` images, and the targets' scores if they are separate."""
    scores = computed.scores.detach().cpu()
    of_targets = None if computed.of_targets is None else computed.of_targets.detach().cpu()
    if not (scores.ndim == 3 or (scores.ndim == 4 and scores.shape[3] == n_classes)) or len(scores) != count:
        raise InputError(f"{method} must return scores [{count}, row, col]; it returned {list(scores.shape)}.")
    if not all_finite(scores) or not (of_targets is None or all_finite(of_targets)):
        raise InputError(
            f"{method} returns NaN or infinity on this image: check the image and the weights for extreme values, "
            "or use dtype='float32' instead of float16."
        )
    return scores, of_targets
