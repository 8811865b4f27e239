"""One row of an explorer: the photo, and a map of it by each method."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from caap_lab.models.base import HookedModel
from caap_lab.widgets.explore_calls import map_call
from caap_lab.widgets.explore_runs import ExploreRuns, Side
from caap_lab.widgets.explore_shown import Shown, map_title
from caap_lab.widgets.photos import Photo


def row_of(
    model: HookedModel, photos: Sequence[Photo], runs: ExploreRuns, side: Side, methods: Sequence[str]
) -> list[Shown]:
    """The row of a photo and a target, as far as it is computed.

    Args:
        model: The model.
        photos: All photos.
        runs: The results, and estimates of how long the rest takes.
        side: The photo and the target.
        methods: Names of the methods.
    """
    return [_photo(model, photos, runs, side), *(_map(model, photos, runs, side, name) for name in methods)]


def _photo(model: HookedModel, photos: Sequence[Photo], runs: ExploreRuns, side: Side) -> Shown:
    photo, logits, target = photos[side.place], runs.results.logits.get(side.place), side.target
    caption = photo.name
    if target is not None:
        name = f"'{target.name}'" if isinstance(target.given, int) else target.name
        known = logits is not None and target.has_probability
        share = f" {float(target.probability(cast(Any, logits))):.1%}" if known else ""
        caption = f"{photo.name}: {name}{share}"
    return Shown(f"{side.name}photo", side.place, photo, caption, model.grid)


def _map(model: HookedModel, photos: Sequence[Photo], runs: ExploreRuns, side: Side, name: str) -> Shown:
    photo, given = photos[side.place], None if side.target is None else side.target.given
    shown = Shown(f"{side.name}{name}", side.place, photo, "", model.grid, name, call=map_call(name, photo.call, given))
    m = runs.results.map(side.place, name, given)
    failure = runs.results.failures.get((side.place, name, side.given))
    if m is None and failure is not None:
        return replace(shown, caption=f"{name}: no map", problem=failure)
    if m is None:
        time = runs.times.text(name)
        caption = f"{name}, {time}" if time else name  # also if the work is stopped
        return replace(shown, caption=caption, details=runs.times.details(name))
    settings = ", ".join(f"{key} {value}" for key, value in m.settings.items())
    return replace(shown, m=m, caption=map_title(m), details=settings)
