"""Background runs of an explorer: whole images, boxes and maps, those that are seen first before the rest."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS, attribute
from caap_lab.engine.blanks import blank_image
from caap_lab.engine.settings import DEFAULTS, cutoff_blocks
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Direction, Target
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.explore_results import Box, ExploreResults
from caap_lab.widgets.inserted_box import insert_box
from caap_lab.widgets.photos import Photo
from caap_lab.widgets.run_times import RunTimes

BLANK: str = DEFAULTS["blank"]
FEW = 20
"""Forward passes up to which maps are computed in the order of their tiles; slower ones come later."""


class Side(NamedTuple):
    """A photo and a target: one row of maps."""

    name: str
    """Prefix of the keys of its tiles."""
    place: int
    """Index of the photo."""
    target: Target | None
    """The target; None if it is a prediction that is not known yet."""
    given: Any
    """The target as methods accept it: None for the model's prediction."""
    ready: bool = True
    """False if the target is not known yet: a class that depends on the prediction."""


class ExploreRuns:
    """Creates the jobs of an explorer, and stores their results.

    Attributes:
        results: The computed results.
        times: Estimates of how long maps take.
        cutoff: Number of blocks that a box is inserted into.
    """

    def __init__(self, model: HookedModel, photos: Sequence[Photo]) -> None:
        self._copy = cancellable_copy(model)
        self._photos = photos
        self.results = ExploreResults()
        self.times = RunTimes(model)
        self.cutoff = cutoff_blocks(None, model.n_layers)
        self._has_caap = METHODS["caap"].runs_on(model)
        self._serve_all = {"caap"}  # methods known to score all classes in one map

    def jobs(self, sides: Sequence[Side], methods: Sequence[str], box: Box, changed: Callable[..., None]) -> list[Job]:
        """The jobs for all that is not known yet.

        Args:
            sides: Rows of maps.
            methods: Names of the methods whose maps are requested.
            box: The box that is inserted into the blank, or empty.
            changed: Called when a result arrives: with True if the prediction is new.
        """
        places = list(dict.fromkeys(side.place for side in sides))
        jobs = [self._logits_job(place, changed) for place in places if place not in self.results.logits]
        if box:
            jobs += [self._box_job(place, box, changed) for place in places if (place, box) not in self.results.boxes]
        planned: set[tuple[int, str]] = set()
        wanted = [(method, side) for side in sides for method in methods]
        if self._has_caap and "caap" not in methods:  # for the classes that patches favour
            wanted += [("caap", side) for side in sides]
        wanted.sort(key=lambda pair: self._long(pair[0]))  # so that a quick map does not wait minutes for a slow one
        for method, side in wanted:
            jobs += self._map_jobs(side, method, planned, changed)
        return list({job.key: job for job in jobs}.values())

    def _long(self, method: str) -> float:
        """Forward passes of a map, if they are many; otherwise 0."""
        passes = self.times.passes(method) or 0.0
        return passes if passes > FEW else 0.0

    def _logits_job(self, place: int, changed: Callable[..., None]) -> Job:
        def run() -> tuple[Tensor, Tensor | None, float]:
            with torch.no_grad():
                logits = self._copy(self._photos[place].x)[0].float().cpu()
                if self.results.blank is not None:
                    return logits, None, 0.0
                blank = blank_image(self._copy, BLANK)
                assert blank is not None  # it is given by name
                start = perf_counter()  # the second run: a model's first run takes longer than the others
                return logits, self._copy(blank)[0].float().cpu(), perf_counter() - start

        def receive(found: tuple[Tensor, Tensor | None, float]) -> None:
            self.results.logits[place], blank, seconds = found
            if blank is not None:
                self.results.blank, self.times.seconds_per_pass = blank, seconds
            changed(True)

        return Job(("logits", place), run, receive)

    def _box_job(self, place: int, box: Box, changed: Callable[..., None]) -> Job:
        def run() -> Tensor:
            assert isinstance(self._copy, HookedViT)
            return insert_box(self._copy, self._photos[place].x, box, self.cutoff, BLANK)

        def receive(logits: Tensor) -> None:
            self.results.boxes[place, box] = logits
            changed()

        return Job(("box", place, box), run, receive)

    def _map_jobs(
        self, side: Side, method: str, planned: set[tuple[int, str]], changed: Callable[..., None]
    ) -> list[Job]:
        """A map's job; none if it is known, or computed by another planned job."""
        given, place = side.given, side.place
        known = side.target is not None and self.results.map(place, method, side.target.given) is not None
        if known or not side.ready or (place, method, given) in self.results.failures:
            return []
        serves_all = method in self._serve_all or not METHODS[method].class_specific
        if serves_all and not isinstance(given, Direction):
            if (place, method) in planned:
                return []
            planned.add((place, method))

        def run() -> AttributionMap | list[AttributionMap] | Exception:
            try:
                return attribute(self._copy, self._photos[place].x, method, given, progress=False)
            except Exception as error:  # shown in the widget, next to the other maps
                return error

        def receive(m: AttributionMap | Exception) -> None:
            if isinstance(m, Exception):
                self.results.failures[place, method, given] = f"{type(m).__name__}: {m}"
                changed()
                raise m
            self.results.keep_map(place, m)
            self.times.keep(m)
            if m.all_scores is not None:
                self._serve_all.add(method)
            changed()

        return [Job(("map", place, method, given), run, receive)]
