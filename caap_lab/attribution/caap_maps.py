"""CAAP's maps for one or several settings, from one run of each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from caap_lab.attribution.map import AttributionMap, Sign
from caap_lab.attribution.runner import BatchScores, MapJob, run_maps
from caap_lab.engine.patched_logits import patched_logits, sizes_of
from caap_lab.engine.plan import check_ready, joined, plan_of, written_settings
from caap_lab.engine.scores import SCORES, check_score, score_read, target_score
from caap_lab.engine.settings import CaapSettings
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.explained import predicted_targets
from caap_lab.models.targets import Target, TargetLike, Targets


def caap_maps(
    model: HookedModel,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | None,
    settings: Sequence[CaapSettings],
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> list[list[AttributionMap]]:
    """For every image, a map for each of several settings, which differ in start, cutoff and score alone.

    The images run once for all maps. Where the context allows it ("clamped", "dropped"), maps with the same start share
    the blocks before their own cutoff, and maps that differ in their score share everything.

    Args:
        model: The model.
        images: One image, or several.
        target: As in `caap`.
        settings: What to map.
        batch_size: Images run at once.
        progress: Show a progress bar for more than one image.

    Raises:
        InputError: something given does not fit, before anything runs.
    """

    def prepare(model: HookedModel, batch_size: int) -> MapJob:
        return prepare_settings(model, settings, batch_size)

    return run_maps(model, images, target, prepare, batch_size=batch_size, progress=progress)


def prepare_caap(model: HookedModel, options: Mapping[str, Any], batch_size: int) -> MapJob:
    """The job of one map, from `caap`'s options by name."""
    return prepare_settings(model, [CaapSettings(**options)], batch_size)


def prepare_settings(model: HookedModel, settings: Sequence[CaapSettings], batch_size: int) -> MapJob:
    """The job of a map for each of several settings.

    Raises:
        InputError: settings do not fit the model, or the model is not ready to run.
    """
    plans = [plan_of(model, one) for one in settings]
    check_ready(model)
    sizes = sizes_of(model, joined(plans), settings[0], batch_size)
    first = settings[0]

    def compute(images: Tensor, targets: Targets | None) -> list[BatchScores]:
        logits = patched_logits(
            model, images, joined(plans), first.blank, first.seed, sizes.patches, own=targets is None
        )
        if targets is None:
            assert logits.own is not None
            targets = predicted_targets(model, logits.own)
        maps = []
        for one, plan in zip(settings, plans, strict=True):
            patched = logits.by_range[plan.start, plan.cutoffs[0]].unflatten(1, model.grid)
            of_images = zip(targets, patched, strict=True)
            scores = SCORES[one.score].of_logits(patched[..., : model.n_classes])
            if patched.is_cuda and one.score != "logit":  # a probability of infinity is a number, and is to be refused
                scores = scores.where(patched[..., : model.n_classes].isfinite(), torch.nan)
            of_targets = torch.stack([target_score(target, of_image, one.score) for target, of_image in of_images])
            if plan.direction == "remove":
                assert logits.own is not None
                own = logits.own[:, None, None]
                scores = SCORES[one.score].of_logits(own[..., : model.n_classes]) - scores
                whole = [target_score(t, of_image, one.score) for t, of_image in zip(targets, own, strict=True)]
                of_targets = torch.stack(whole) - of_targets
            maps.append(
                BatchScores(
                    scores,
                    targets,
                    score_read(one.score, model.n_classes, plan.direction),
                    _of_map(written_settings(model, one, plan, logits.blank)),
                    logits.fingerprint,
                    of_targets,
                )
            )
        return maps

    def check_target(target: Target) -> None:
        for one in settings:
            check_score(target, one.score)

    in_full = model.kind == "cnn" or plans[0].context == "free"  # as `CAAP` states its cost
    passes = 1 + model.grid[0] * model.grid[1] if in_full else 5
    sign: Sign = "signed" if first.direction == "remove" else "level"
    return MapJob("caap", sign, sizes.images, compute, check_target=check_target, passes=len(plans) * passes)


def _of_map(written: dict[str, Any]) -> dict[str, Any]:
    """Settings in the order that map files have; the score stands in a place of its own there."""
    first = ("cutoff", "start", "neighbourhood", "seed")
    rest = [name for name in written if name not in (*first, "score", "blank")]
    return {name: written[name] for name in (*first, *rest, "blank")}
