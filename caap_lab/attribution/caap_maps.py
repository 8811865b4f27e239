"""CAAP's maps for one or several settings, from one run of each image."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.runner import BatchScores, MapJob, run_maps
from caap_lab.engine.patched_logits import patched_logits, sizes_of
from caap_lab.engine.plan import check_ready, joined, plan_of, written_settings
from caap_lab.engine.scores import SCORES, score_read
from caap_lab.engine.settings import CaapSettings
from caap_lab.models.base import HookedModel, Images


def caap_maps(
    model: HookedModel,
    images: Images,
    target: int | str | Sequence[int | str] | None,
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

    def compute(images: Tensor, targets: Sequence[int] | None) -> list[BatchScores]:
        logits = patched_logits(
            model, images, joined(plans), first.blank, first.seed, sizes.patches, own=targets is None
        )
        if targets is None:
            assert logits.own is not None
            targets = logits.own.argmax(dim=-1).tolist()
        return [
            BatchScores(
                SCORES[one.score].of_logits(logits.by_range[plan.start, plan.cutoffs[0]]).unflatten(1, model.grid),
                targets,
                score_read(one.score, model.n_classes),
                _of_map(written_settings(model, one, plan, logits.blank)),
                logits.fingerprint,
            )
            for one, plan in zip(settings, plans, strict=True)
        ]

    return MapJob("caap", "level", sizes.images, compute)


def _of_map(written: dict[str, Any]) -> dict[str, Any]:
    """Settings in the order that map files have; the score stands in a place of its own there."""
    first = ("cutoff", "start", "neighbourhood", "seed")
    rest = [name for name in written if name not in (*first, "score", "blank")]
    return {name: written[name] for name in (*first, *rest, "blank")}
