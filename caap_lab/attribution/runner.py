"""The one runner of all methods: images in batches, with a progress bar, timing and checks, to maps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.map import AttributionMap, Sign
from caap_lab.attribution.map_target import of_all_scores
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import batches, check_images
from caap_lab.models.pass_meter import passes_shown
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Target, TargetLike, Targets, explained


@dataclass(frozen=True)
class BatchScores:
    """What a method computed for one map of every image of a batch."""

    scores: Float[Tensor, "..."]
    """Scores of the targets, [image, row, col]; or of all classes at once, [image, row, col, classes], from which the
    runner reads the targets', see `of_all_scores`. It refuses other shapes, as a method may be a user's own."""
    targets: Targets
    """What is explained in each image."""
    score: str
    """What a score is, see `AttributionMap`."""
    settings: Mapping[str, Any]
    """Every argument that the method ran with, as maps keep it."""
    fingerprint: str = ""
    """The model's, where the method has read it; else the runner reads it, which takes a few hundredths of a map."""
    of_targets: Float[Tensor, "image row col"] | None = None
    """Scores of the targets beside those of all classes, where the method has read them itself."""


@dataclass(frozen=True)
class MapJob:
    """A method that is ready to run on a model: its options are checked."""

    method: str
    sign: Sign
    batch_size: int
    """Images at once."""
    compute: Callable[[Float[Tensor, "image 3 height width"], Targets | None], Sequence[BatchScores]]
    """(images, targets, or None for the model's own predictions) -> scores, for each map that the method makes of an
    image."""
    class_specific: bool = True
    """False if the map is the same for all targets."""
    check_target: Callable[[Target], None] = lambda target: None
    """Refuses a target that the method's options do not fit."""
    passes: float | None = None
    """Forward passes that one image takes, about; None where that is not known."""


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
    """For every image, the maps that a method makes of it.

    The model is held and runs without autocast, from the checks of `prepare` to the last map.

    Args:
        model: The model.
        images: One image, or several.
        target: What to explain, see `caap_lab.models.targets.TargetLike`; one for all images or one each; None for the
            model's own prediction.
        prepare: (model, batch_size) -> the method's job. It refuses what does not fit, before anything runs.
        batch_size: Images run at once, or fewer if the method says so.
        progress: Show a progress bar, for one image where it takes more than a moment.

    Raises:
        InputError: something given does not fit; or scores are not finite, or have another shape than they should.
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
    fingerprint = ""
    maps: list[list[AttributionMap]] = []
    with (
        tqdm(total=len(singles), desc=job.method, unit="map", disable=not progress or len(singles) == 1) as bar,
        passes_shown(f"{job.method}: 1 map", job.passes, progress and len(singles) == 1),
    ):
        for batch in batches(model, singles, job.batch_size):
            began = time.perf_counter()
            targets = None if wanted is None else wanted[len(maps) : len(maps) + len(batch)]
            computed = job.compute(batch, targets)
            checked = [_checked(one, len(batch), model.n_classes, job.method) for one in computed]
            seconds = (time.perf_counter() - began) / (len(batch) * len(computed))
            fingerprint = computed[0].fingerprint or fingerprint or model.fingerprint
            for row, image in enumerate(batch):
                of_image = []
                for one, (scores, of_targets) in zip(computed, checked, strict=True):
                    target_of_image = one.targets[row]
                    every_class = scores[row] if scores.ndim == 4 else None
                    if of_targets is not None:
                        of_target = of_targets[row]
                    elif every_class is not None:
                        of_target = of_all_scores(target_of_image, every_class, one.score, job.method)
                    else:
                        of_target = scores[row]
                    of_image.append(
                        AttributionMap.of_model(
                            model,
                            image,
                            of_target.clone(),
                            target=target_of_image,
                            class_specific=job.class_specific,
                            method=job.method,
                            score=one.score,
                            sign=job.sign,
                            settings=one.settings,
                            seconds=seconds,
                            fingerprint=fingerprint,
                            all_scores=every_class,
                        )
                    )
                maps.append(of_image)
                bar.update()
    return maps


def _checked(
    computed: BatchScores, count: int, n_classes: int, method: str
) -> tuple[Float[Tensor, "image row col *classes"], Float[Tensor, "image row col"] | None]:
    """Scores of `count` images, which have their shape and are finite; and the targets' where they stand apart."""
    scores = computed.scores.detach().cpu()
    of_targets = None if computed.of_targets is None else computed.of_targets.detach().cpu()
    if not (scores.ndim == 3 or (scores.ndim == 4 and scores.shape[3] == n_classes)) or len(scores) != count:
        raise InputError(f"{method} must give scores [{count}, row, col]; it gave {list(scores.shape)}.")
    if not scores.isfinite().all() or not (of_targets is None or of_targets.isfinite().all()):
        raise InputError(
            f"{method} gives NaN or infinity on this image: look for extreme values in the image or the weights, "
            "or use dtype='float32' instead of float16."
        )
    return scores, of_targets
