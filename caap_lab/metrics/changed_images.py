"""What metrics that change an image share: maps that fit, the order of their pixels, and the target's score."""

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
from caap_lab.models.device_dtype import exact
from caap_lab.models.targets import Contrast, Direction, Logit, Target, TargetLike, Targets, explained
from caap_lab.models.vit import HookedViT


@dataclass(frozen=True, eq=False)
class CheckedMaps:
    """Maps with all that it takes to score them."""

    model: HookedModel
    """What to run: the model, or one that has a column of logits for a direction."""
    images: list[Images]
    """One for each map, or one for all."""
    maps: list[AttributionMap]
    targets: Targets
    """One for each map."""


def checked_maps(
    model: HookedModel,
    images: Images,
    maps: AttributionMap | Sequence[AttributionMap],
    target: TargetLike | None,
) -> CheckedMaps:
    """Maps of a model's images, and what reads the logits for them.

    Args:
        model: The model.
        images: One for each map, or one for all.
        maps: A map, or several.
        target: What to score; None for what each map explains.

    Raises:
        InputError: they do not belong together.
    """
    several = [maps] if isinstance(maps, AttributionMap) else list(maps)
    singles = check_images(images)
    if not several or not all(isinstance(m, AttributionMap) for m in several):
        raise InputError("Expected attribution maps, as cl.attribute gives them.")
    if len(singles) not in (1, len(several)):
        raise InputError(f"{len(several)} maps need as many images, or one for all; {len(singles)} were given.")
    for m in several:
        if (m.target_class or 0) >= model.n_classes or tuple(m.image.shape[:2]) != model.preprocessing.image_size:
            raise InputError(f"The map of {m.method} was made for another model: {m.model_name}.")
    _check_origin(model, singles, several)
    # A map's class is the class's own logit, also where a class that a user gives stands for a contrast.
    own = [Logit(m.target) if isinstance(m.target, int) else m.target for m in several]
    running, targets = explained(model, own if target is None else target, len(several))
    return CheckedMaps(running, singles, several, targets)


def _check_origin(model: HookedModel, images: list[Images], maps: list[AttributionMap]) -> None:
    """Refuse maps of another model or of another image; what a map does not know of itself is not checked."""
    known = model.fingerprint
    digest = ""
    for index, m in enumerate(maps):
        if m.fingerprint and not same_model(m.fingerprint, known):
            raise InputError(
                f"Map {index} was made by another model: {m.model_name} {m.fingerprint}, and this is "
                f"{model.model_name} {known} (hashes of weights and of structure). Make the map with this model, or "
                "give the one that made it."
            )
        if index < len(images):  # one image may be given for all maps
            digest = tensor_digest(model.preprocess(images[index])[0])
        if m.image_digest and m.image_digest != digest:
            raise InputError(
                f"Map {index} was made for another image: what the model sees of the image given here is not what it "
                "saw when the map was made. Give the maps' own images, in their order."
            )


def change_order(m: AttributionMap, upsampling: str) -> Int[Tensor, "height width"]:
    """Each pixel's place in the order of change, 0 for the highest score.

    Pixels of equal score come in reading order; which are equal is decided without rounding, see `enlarged`. With
    "nearest-exact" whole cells come one after the other, cells of equal score in reading order.
    """
    scores = m.scores
    if upsampling == "nearest-exact":
        cells = scores.flatten().argsort(descending=True, stable=True).argsort()
        scores = -cells.reshape(scores.shape).double()
    pixels = enlarged(scores, (m.image.shape[0], m.image.shape[1]), upsampling)
    return pixels.flatten().argsort(descending=True, stable=True).argsort().reshape(pixels.shape)


def value_name(score: str, target: Target) -> str:
    """What a score of `target_scores` is, for axes."""
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
    """Each row's score of its target, in float64 on the CPU.

    Args:
        model: The model.
        batch: Images.
        targets: One for each image.
        score: "prob", "logit" or "top1": 1 where the target's class is the model's answer; for a contrast of two
            classes, where it is the higher one. Directions and functions have no probability: "prob" is their value.
        probability: How logits become probabilities, see `caap_lab.models.probability`.

    Raises:
        InputError: the model gives NaN or infinity.
    """
    return read_scores(*scores_under_way(model, batch, targets, score, probability))


def scores_under_way(
    model: HookedModel,
    batch: Float[Tensor, "row 3 height width"],
    targets: Sequence[Target],
    score: str,
    probability: str = "auto",
) -> tuple[Float[Tensor, " row"], Bool[Tensor, ""]]:
    """As `target_scores`, on the model's device, which may be a GPU at work; and whether all logits are numbers."""
    # Changed images are made of images that were looked at: to look at them again would wait for a GPU.
    logits = model(model.embed(batch), start_at_layer=0) if isinstance(model, HookedViT) else model(batch)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    parts, first = [], 0
    for target, same in groupby(targets):
        rows = logits[first : first + len(list(same))]
        first += len(rows)
        parts.append(exact(_score(target, rows, score, probability)))
    return torch.cat(parts), logits.isfinite().all()


def read_scores(scores: Float[Tensor, " row"], finite: Bool[Tensor, ""]) -> Float[Tensor, " row"]:
    """Scores on the CPU.

    Raises:
        InputError: the model gives NaN or infinity.
    """
    if not finite.cpu():
        raise InputError(
            "The model gives NaN or infinity on a changed image: look for such values in its weights, or use "
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
    assert index is not None  # `insertion_deletion` refuses targets that are no class
    if probability == "sigmoid":
        return logits[:, index] > 0
    return logits[:, : target.n_classes].argmax(dim=1) == index  # of equal classes the first is the answer
