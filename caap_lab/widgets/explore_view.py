"""Explorer widget: maps of several methods side by side, and the effect of inserting patches into a blank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS, unknown_method
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.neighbourhoods import find_neighbourhood
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import Target, TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.board import Board, Tool
from caap_lab.widgets.explore_calls import map_calls
from caap_lab.widgets.explore_choices import CompareControl, DifferenceControl
from caap_lab.widgets.explore_details import NEIGHBOURHOOD, explore_details
from caap_lab.widgets.explore_figure import explore_figure
from caap_lab.widgets.explore_pins import Pins
from caap_lab.widgets.explore_rows import row_of
from caap_lab.widgets.explore_runs import BLANK, ExploreRuns, Side
from caap_lab.widgets.explore_shown import (
    Rows,
    Shown,
    difference_of,
    maps_of,
    patch_table,
    shared_ranges,
    tiles_of,
)
from caap_lab.widgets.image_picker import ImagePicker
from caap_lab.widgets.inserted_box import insert_box_calls
from caap_lab.widgets.method_picker import MethodPicker
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import dropped, offer, photos_of
from caap_lab.widgets.target_box import TargetBox

TOOLS: tuple[Tool, ...] = ("modes", "smooth", "robust", "fade", "opacity", "colours", "signs", "top", "lock")
ALONE, BESIDE = 220, 150
"""Smallest width of a tile in pixels, for one row and for rows that are compared, each preferably on one line."""


def explore(
    model: HookedModel,
    images: Images | ImageSet,
    target: TargetLike | None = None,
    methods: str | Sequence[str] | None = None,
) -> "Explorer":
    """Explore images one by one: maps of methods side by side, patches under the mouse, boxes inserted into a blank.

    ```python
    cl.widgets.explore(model, ["cat.jpg", "dog.jpg"], methods=["caap", "libra_ixg_plus"])
    ```

    Point at a patch for its score and rank in every map, and for the classes that it favours when only it is inserted
    (with CAAP's default settings; all classes come from one pass). Drag a box to insert all its patches at once. Pin a
    map to keep it while class, photo or settings change, compare two classes or photos row by row, or subtract one map
    from another.

    Args:
        model: Any model; models that are not Vision Transformers have fewer methods and features.
        images: Images, demo scenes, or a data set. More can be uploaded.
        target: The initial class: index, WordNet id or word; None for the model's own prediction. Or another target,
            such as `cl.contrast("tabby", "tiger cat")`, which the class field keeps as its first suggestion.
        methods: Names of the initial methods, see `cl.methods()`; by default CAAP or, for a model on which CAAP does
            not run, the first method that does.

    Returns:
        The widget. `to_figure()` returns its state as a figure, `to_dataframe()` its numbers, `link` the Python calls
        that compute them, and `maps` the maps themselves.

    Raises:
        InputError: an argument is invalid.
    """
    return Explorer(model, images, target, [methods] if isinstance(methods, str) else methods)


class Explorer(Panel):
    """The widget of `explore`."""

    def __init__(
        self,
        model: HookedModel,
        images: Images | ImageSet,
        target: TargetLike | None,
        methods: Sequence[str] | None,
    ) -> None:
        runnable = [name for name, method in METHODS.items() if method.runs_on(model)]
        chosen = _default_methods(runnable) if methods is None else tuple(methods)
        for name in chosen:
            if name not in METHODS:
                raise unknown_method(name)
            if name not in runnable:
                raise InputError(f"{name} does not run on {model.model_name}; these do: {', '.join(runnable)}.")
        if not chosen:
            raise InputError("Choose at least one method.")
        self.photos = photos_of(model, images)
        self.target_box = TargetBox(model, target)  # checked last: nothing has to be closed if it fails
        super().__init__()
        self.model = model
        self._runs = ExploreRuns(model, self.photos)
        self._results = self._runs.results
        self._pins = Pins()
        self._first_class = self.target_box.value
        self._place = 0
        self._paused = False

        self.image_picker = ImagePicker()
        self.method_picker = MethodPicker(runnable, chosen, model)
        self.compare = CompareControl(model, lambda box: box.on_choice(self._update, self._on))
        self.difference = DifferenceControl()
        modes = ["choose", "box"] if isinstance(model, HookedViT) else ["choose"]
        self.board = Board(TOOLS, modes=modes)
        if "caap" in runnable:
            self.board.neighbours = [list(offset) for offset in find_neighbourhood(NEIGHBOURHOOD)]
        self._details = ipywidgets.HTML()
        self._lay_out(
            [
                group("Photo", self.image_picker),
                group("Class", self.target_box),
                group("Methods", self.method_picker),
                group("Compare", self.compare),
                group("Difference", self.difference),
            ],
            self.board,
            self._details,
        )
        self._show_photos()
        self.target_box.on_choice(self._update, self._on)
        self._on(self.image_picker, "chosen", self._on_photo)
        self._on(self.method_picker, "value", self._on_methods)
        self._on(self.image_picker, "file", self._on_file)
        self._on(self.compare.kind, "value", self._on_compare)
        self._on(self.compare.photo, "value", self._update)
        self._on(self.difference, "pair", self._on_difference)
        self._on(self.board, "chosen", self._describe)
        self._on(self.board, "box", self._update)
        self._on(self.board, "pinned", self._on_pinned)
        for name in self.board.look:
            self._on(self.board, name, self._changed)
        with self._shown_errors():
            self._update()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods shown."""
        return self.method_picker.value

    @property
    def target(self) -> Any:
        """The target: a class's index, or a contrast or the like; None if the prediction is not known yet."""
        target = self._target
        return None if target is None else target.given

    @property
    def _target(self) -> Target | None:
        return self.target_box.resolved(self._results.predicted(self.image_picker.chosen))

    @property
    def maps(self) -> dict[str, AttributionMap]:
        """The computed maps of the photo and class, by method."""
        place, target = self.image_picker.chosen, self.target
        maps = {name: self._results.map(place, name, target) for name in self.methods}
        return {name: m for name, m in maps.items() if m is not None}

    @property
    def shown_maps(self) -> dict[str, AttributionMap]:
        """All maps that are shown, by tile: also those of another class or photo, pinned ones, and the difference."""
        return {shown.key: cast(AttributionMap, shown.m) for shown in maps_of(self._rows())}

    @property
    def file_name(self) -> str:
        """Name of saved files: the model and the photo."""
        return f"{self.model.model_name} {self.photos[self.image_picker.chosen].name}"

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown: one line per map, then the run with the box."""
        lines = list(map_calls(self._rows()))
        if self.board.box:
            for place in self._places:
                lines += insert_box_calls(self.photos[place].call, self.board.box, self._runs.cutoff, BLANK)
        return "\n".join(lines)

    def to_figure(self) -> Figure:
        """Photos and maps with their scales and the browser's display settings, and the chosen patch and box."""
        return explore_figure(self.model.model_name, self._rows(), self.board)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per map and patch in reading order: its score, and its rank from 0 to 1."""
        return patch_table(self._rows())

    # -- events ------------------------------------------------------------------------------------------------------

    def _show_photos(self) -> None:
        offer(self.image_picker, self.photos)
        self.compare.offer(self.image_picker.names)

    def _on_file(self) -> None:
        photo = dropped(self.model, self.image_picker)
        if photo is not None:
            self.photos.append(photo)
            self._show_photos()
            self.image_picker.chosen = len(self.photos) - 1

    def _on_photo(self) -> None:
        """Start again: neither patch, box nor class of the last photo applies to this one."""
        with self._pause():
            self.board.chosen, self.board.box = [], []
            self.target_box.value, self.target_box.against = self._first_class, ""
            self.compare.keep_apart(self.image_picker.chosen, self._place)
        self._place = self.image_picker.chosen
        self._update()

    def _on_methods(self) -> None:
        self._results.failures.clear()  # choosing a method again retries it
        self._update()

    def _on_compare(self) -> None:
        with self._pause():
            self.compare.keep_apart(self._place, (self._place + 1) % len(self.photos))
        self._update()

    def _on_pinned(self) -> None:
        if self._pins.take(self.board.pinned, self._live_rows()):
            self._draw()

    def _on_difference(self) -> None:
        self._draw()
        for shown in self._rows()[-1]:
            if shown.problem:
                raise InputError(shown.problem)

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Change several settings before anything is computed or drawn."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _update(self) -> None:
        """Show what is known for the current photo, target and methods, and compute the rest."""
        if self._paused:
            return
        self._suggest()
        self._draw()
        self._replace_jobs(self._runs.jobs(self._sides, self.methods, tuple(self.board.box), self._on_result))

    def _on_result(self, prediction: bool = False) -> None:
        if prediction and self.compare.kind.value == "class":
            self._update()  # the other class depends on the prediction
            return
        if prediction:
            self._suggest()
        self._draw()

    def _suggest(self) -> None:
        """Suggest the classes of the photo in their order."""
        place = self.image_picker.chosen
        logits = self._results.logits.get(place)
        if logits is None:
            return
        self.target_box.suggest(probabilities(logits))
        self.compare.suggest(logits, self._other_class)

    # -- display -----------------------------------------------------------------------------------------------------

    @property
    def _sides(self) -> list[Side]:
        place, wanted = self.image_picker.chosen, self.target_box.target
        sides = [Side("", place, self._target, wanted)]
        if self.compare.kind.value == "photo":
            other = self.compare.photo.value
            sides.append(Side("other ", other, self.target_box.resolved(self._results.predicted(other)), wanted))
        elif self.compare.kind.value == "class" and (box := self.compare.target_box) is not None:
            index = self._other_class
            given = index if box.target is None else box.target
            sides.append(Side("other ", place, box.resolved(index), given, ready=given is not None))
        return sides

    @property
    def _other_class(self) -> int | None:
        """The class to compare with if none is chosen: the likeliest other one."""
        target = self._target
        return self._results.likeliest(self.image_picker.chosen, besides=None if target is None else target.index)

    @property
    def _places(self) -> list[int]:
        """Indices of the photos of all sides, without repetition."""
        return list(dict.fromkeys(side.place for side in self._sides))

    def _rows(self) -> Rows:
        rows = self._live_rows()
        extra = self._pins.shown
        first, second = self.difference.pair
        by_key = {shown.key: shown for row in (*rows, extra) for shown in row}
        if first in by_key and second in by_key:
            extra = [*extra, difference_of(by_key[first], by_key[second])]
        return [*rows, extra] if extra else rows

    def _live_rows(self) -> list[list[Shown]]:
        """The rows that follow the controls, without pinned maps."""
        return [row_of(self.model, self.photos, self._runs, side, self.methods) for side in self._sides]

    def _draw(self) -> None:
        if self._paused:
            return
        board, live = self.board, self._live_rows()
        self._pins.follow(live)
        rows = self._rows()
        maps = maps_of(rows)
        tips = {
            shown.key: self._results.tips(shown.place, shown.m.grid if shown.m else shown.grid, self.model.class_names)
            for row in rows
            for shown in row
        }
        self.difference.offer([(shown.caption, shown.key) for shown in maps if shown.key != "difference"])
        photos = {str(shown.place): shown.photo.png for row in rows for shown in row}
        with board.hold_sync():
            board.label = f"Photo and maps of {self.photos[self.image_picker.chosen].name}"
            if photos != board.photos:
                board.photos = photos
            board.smallest = ALONE if len(rows) == 1 else BESIDE
            board.tiles = tiles_of(rows, tips, shared_ranges(rows))
            board.pinned = self._pins.keys
        self._describe()

    def _describe(self) -> None:
        """Show the classes favoured by the chosen patch and the box."""
        if self._paused:
            return
        self._details.value = explore_details(
            self.model,
            self._results,
            [(place, self.photos[place].name) for place in self._places],
            self.board.chosen,
            tuple(self.board.box),
            [side.target for side in self._sides],
            self._runs.cutoff,
        )
        self._changed()


def _default_methods(runnable: Sequence[str]) -> tuple[str, ...]:
    """CAAP if it runs, otherwise the first method that does."""
    return ("caap",) if "caap" in runnable else tuple(runnable[:1])
