"""The one runner of all methods: images in batches, with a progress bar, timing and checks, to maps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.map import AttributionMap, Sign
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import batches, check_images
from caap_lab.models.running import runs_model


@dataclass(frozen=True)
class BatchScores:
    """What a method computed for one map of every image of a batch."""

    scores: Float[Tensor, "..."]
    """Scores of the targets, [image, row, col]; or of all classes at once, [image, row, col, classes], of which the
    runner takes the targets'. It refuses other shapes, as a method may be a user's own."""
    targets: Sequence[int]
    """Class of each image."""
    score: str
    """What a score is, see `AttributionMap`."""
    settings: Mapping[str, Any]
    """Every argument that the method ran with, as maps keep it."""
    fingerprint: str = ""
    """The model's, where the method has read it; else the runner reads it, which takes a few hundredths of a map."""


@dataclass(frozen=True)
class MapJob:
    """A method that is ready to run on a model: its options are checked."""

    method: str
    sign: Sign
    batch_size: int
    """Images at once."""
    compute: Callable[[Float[Tensor, "image 3 height width"], Sequence[int] | None], Sequence[BatchScores]]
    """(images, targets, or None for the model's own predictions) -> scores, for each map that the method makes of an
    image."""


@runs_model
def run_maps(
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None,
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
        target: Class index, WordNet id or word; one for all images or one each; None for the model's own prediction.
        prepare: (model, batch_size) -> the method's job. It refuses what does not fit, before anything runs.
        batch_size: Images run at once, or fewer if the method says so.
        progress: Show a progress bar for more than one image.

    Raises:
        InputError: something given does not fit; or scores are not finite, or have another shape than they should.
    """
    check_count("batch_size", batch_size)
    job = prepare(model, int(batch_size))
    singles = check_images(images)
    model.target(0)  # a model without a classifier is refused here
    wanted = None if target is None else model.targets(target, len(singles))
    fingerprint = ""
    maps: list[list[AttributionMap]] = []
    with tqdm(total=len(singles), unit="map", disable=not progress or len(singles) == 1) as bar:
        for batch in batches(model, singles, job.batch_size):
            began = time.perf_counter()
            targets = None if wanted is None else wanted[len(maps) : len(maps) + len(batch)]
            computed = job.compute(batch, targets)
            checked = [_checked(one.scores.detach().cpu(), len(batch), model.n_classes, job.method) for one in computed]
            seconds = (time.perf_counter() - began) / (len(batch) * len(computed))
            fingerprint = computed[0].fingerprint or fingerprint or model.fingerprint
            for row, image in enumerate(batch):
                of_image = []
                for one, scores in zip(computed, checked, strict=True):
                    index = int(one.targets[row])
                    every_class = scores[row] if scores.ndim == 4 else None
                    of_image.append(
                        AttributionMap.of_model(
                            model,
                            image,
                            (scores[row] if every_class is None else every_class[..., index]).clone(),
                            target=index,
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


def _checked(scores: Tensor, count: int, n_classes: int, method: str) -> Tensor:
    """Scores of `count` images, which have their shape and are finite."""
    if not (scores.ndim == 3 or (scores.ndim == 4 and scores.shape[3] == n_classes)) or len(scores) != count:
        raise InputError(f"{method} must give scores [{count}, row, col]; it gave {list(scores.shape)}.")
    if not scores.isfinite().all():
        raise InputError(
            f"{method} gives NaN or infinity on this image: look for extreme values in the image or the weights, "
            "or use dtype='float32' instead of float16."
        )
    return scores
