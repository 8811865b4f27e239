"""Helpers of metrics that change an image: checks of maps, the order of pixels, and the target's score."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.attribution.enlarge import enlarged
from caap_lab.attribution.map import AttributionMap
from caap_lab.digests.fingerprint import same_model
from caap_lab.digests.tensors import tensor_digest
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import check_images
from caap_lab.models.device_dtype import all_finite, exact, widened
from caap_lab.models.explained import explained
from caap_lab.models.targets import Contrast, Direction, Logit, Target, TargetLike, Targets
from caap_lab.models.vit import HookedViT


@dataclass(frozen=True, eq=False)
class CheckedMaps:
    """Maps with everything that is needed to score them."""

    model: HookedModel
    """The model to run: the given one, or one with a column of logits for a direction."""
    images: list[Images]
    """One image per map, or one for all."""
    maps: list[AttributionMap]
    targets: Targets
    """One target per map."""


def checked_maps(
    model: HookedModel,
    images: Images,
    maps: AttributionMap | Sequence[AttributionMap],
    target: TargetLike | None,
    known: str | None = None,
) -> CheckedMaps:
    """Checked maps of a model's images, with their targets.

    Args:
        model: The model.
        images: One image per map, or one for all.
        maps: A map, or several.
        target: The target to score; None for the target of each map.
        known: The model's fingerprint, if the caller has it.

    Raises:
        InputError: images, maps and model do not match.
    """
    several = [maps] if isinstance(maps, AttributionMap) else list(maps)
    singles = check_images(images)
    if not several or not all(isinstance(m, AttributionMap) for m in several):
        raise InputError(
            "Expected attribution maps, such as cl.attribute returns. Scores of your own or of another tool become "
            "maps through a method: cl.register('mine', lambda model, images, targets: scores), with scores "
            "[batch, row, col], then cl.attribute(model, images, 'mine')."
        )
    if len(singles) not in (1, len(several)):
        raise InputError(
            f"{len(several)} maps need the same number of images, or one for all; {len(singles)} were given."
        )
    for m in several:
        if (m.target_class or 0) >= model.n_classes or tuple(m.image.shape[:2]) != model.preprocessing.image_size:
            raise InputError(f"The map of {m.method} was made for another model: {m.model_name}.")
    _check_origin(model, singles, several, model.fingerprint if known is None else known)
    # A map's class means the class's own logit, also for models where a user's class means a contrast.
    own = [Logit(m.target) if isinstance(m.target, int) else m.target for m in several]
    running, targets = explained(model, own if target is None else target, len(several))
    return CheckedMaps(running, singles, several, targets)


def _check_origin(model: HookedModel, images: list[Images], maps: list[AttributionMap], known: str) -> None:
    """Raise InputError for maps of another model or image, if the maps have recorded them."""
    digest = ""
    last: Images | None = None
    for index, m in enumerate(maps):
        if m.fingerprint and not same_model(m.fingerprint, known):
            raise InputError(
                f"Map {index} was made by another model: {m.model_name} {m.fingerprint}, but this is "
                f"{model.model_name} {known} (hashes of weights and of structure). Make the map with this model, or "
                "pass the model that made it."
            )
        if index < len(images) and images[index] is not last:  # one image may be given for all maps, or several
            last = images[index]
            digest = tensor_digest(model.preprocess(images[index])[0])
        if m.image_digest and m.image_digest != digest:
            raise InputError(
                f"Map {index} was made for another image: the model's input from the given image is not the one for "
                "which the map was made. Pass the images of the maps, in the same order."
            )


def change_order(m: AttributionMap, upsampling: str) -> Int[Tensor, "height width"]:
    """The position of each pixel in the order of change, 0 for the highest score.

    Pixels of equal score are in reading order; equality is determined without rounding, see `enlarged`. With
    "nearest-exact" complete cells follow one another, cells of equal score in reading order.
    """
    scores = m.scores
    if upsampling == "nearest-exact":
        cells = scores.flatten().argsort(descending=True, stable=True).argsort()
        scores = -cells.reshape(scores.shape).double()
    pixels = enlarged(scores, (m.image.shape[0], m.image.shape[1]), upsampling)
    return pixels.flatten().argsort(descending=True, stable=True).argsort().reshape(pixels.shape)


def value_name(score: str, target: Target) -> str:
    """The quantity of a score of `target_scores`, for axis labels."""
    if target.has_probability:
        logits = "difference of logits" if isinstance(target.given, Contrast) else "logit"
        return {"prob": "probability", "logit": logits, "top1": "is the model's answer"}[score]
    return "projection" if isinstance(target.given, Direction) else "value"


def target_scores(
    model: HookedModel,
    batch: Float[Tensor, "row 3 height width"],
    targets: Sequence[Target],
    score: str,
    probability: str = "auto",
) -> Float[Tensor, " row"]:
    """The score of each row's target, in float64 on the CPU.

    Args:
        model: The model.
        batch: Images.
        targets: One target per image.
        score: "prob", "logit" or "top1": 1 if the target's class is the model's prediction or, for a contrast of two
            classes, if it has the higher logit. Directions and functions have no probability: "prob" is their value.
        probability: How logits become probabilities; see `caap_lab.models.probability`.

    Raises:
        InputError: the model returns NaN or infinity.
    """
    return read_scores(*scores_under_way(model, batch, targets, score, probability))


def scores_under_way(
    model: HookedModel,
    batch: Float[Tensor, "row 3 height width"],
    targets: Sequence[Target],
    score: str,
    probability: str = "auto",
) -> tuple[Float[Tensor, " row"], Bool[Tensor, ""]]:
    """As `target_scores`, but on the model's device, without waiting for it; and whether all logits are finite."""
    # Changed images consist of images that were checked: checking them again would wait for a GPU.
    logits = model(model.embed(batch), start_at_layer=0) if isinstance(model, HookedViT) else model(batch)
    logits = widened(logits)
    parts, first = [], 0
    for target, same in groupby(targets):
        rows = logits[first : first + len(list(same))]
        first += len(rows)
        parts.append(exact(_score(target, rows, score, probability)))
    return torch.cat(parts), all_finite(logits)


def read_scores(scores: Float[Tensor, " row"], finite: Bool[Tensor, ""]) -> Float[Tensor, " row"]:
    """Scores on the CPU.

    Raises:
        InputError: the model returns NaN or infinity.
    """
    if not finite.cpu():
        raise InputError(
            "The model returns NaN or infinity on a changed image: check its weights for such values, or use "
            "dtype='float32' instead of float16."
        )
    return scores.cpu()


def _score(target: Target, logits: Float[Tensor, "row columns"], score: str, probability: str) -> Any:
    if score == "prob":
        return target.probability(logits, probability)
    if score == "logit":
        return target.value(logits)
    if isinstance(target.given, Contrast) and target.given.against is not None:
        return target.value(logits) > 0
    index = target.index
    assert index is not None  # `insertion_deletion` rejects targets that are not classes
    if probability == "sigmoid":
        return logits[:, index] > 0
    return logits[:, : target.n_classes].argmax(dim=1) == index  # of equal classes the first is the prediction
