"""One image at a time: maps of several methods side by side, and what each patch says when it is inserted alone."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import ipywidgets
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import METHODS, attribute, unknown_method
from caap_lab.data.image_set import ImageSet
from caap_lab.engine.blanks import blank_image
from caap_lab.engine.settings import DEFAULTS, cutoff_blocks
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.neighbourhoods import find_neighbourhood
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import Direction, Target, TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.class_table import class_table
from caap_lab.widgets.explore_figure import explore_figure, map_title
from caap_lab.widgets.gallery import Gallery, Upload
from caap_lab.widgets.inserted_box import insert_box, insert_box_calls
from caap_lab.widgets.panel import Panel, close_all, group, wrapped
from caap_lab.widgets.patch_tips import patch_tips
from caap_lab.widgets.photos import photos_of, uploaded
from caap_lab.widgets.picture import Picture
from caap_lab.widgets.pixels import PARTS, map_colours, map_range, png
from caap_lab.widgets.target_box import TargetBox, compared_classes, target_call

NEIGHBOURHOOD: str = DEFAULTS["neighbourhood"]
BLANK: str = DEFAULTS["blank"]
COLOUR_MAPS = ("by sign", "viridis", "cividis", "magma", "gray", "RdBu_r")
KEPT = 64
"""Maps kept in memory."""


def explore(
    model: HookedModel,
    images: Images | ImageSet,
    target: TargetLike | None = None,
    methods: str | Sequence[str] | None = None,
) -> "Explorer":
    """Look at images one by one: maps of methods side by side, patches under the mouse, boxes patched into the blank.

    Point at a patch for its score, rank, neighbourhood and the classes that it speaks for when it alone is inserted
    (with CAAP's default settings; all classes come from one pass). Drag a box to insert all its patches at once.

    Args:
        model: Any model; of others than Vision Transformers, the methods and features that they have.
        images: Images, demo scenes, or a data set. More can be uploaded.
        target: The class to begin with: index, WordNet id or word; None for the model's own prediction. Or another
            target, such as `cl.contrast("tabby", "tiger cat")`, which the class field keeps as its first suggestion.
        methods: Names of the methods to begin with, see `cl.methods()`; by default CAAP, and for a model on which CAAP
            does not run, the first method that does.

    Returns:
        The widget. `to_figure()` gives what it shows as a figure, `link` the Python calls that compute it, and
        `maps` the maps themselves.

    Raises:
        InputError: something given does not fit.
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
            raise InputError("Give one method at least.")
        self.photos = photos_of(model, images)
        self.target_box = TargetBox(model, target)  # the last that may be refused: nothing is left open then
        super().__init__()
        self.model = model
        self._copy = cancellable_copy(model)
        self._maps: OrderedDict[tuple[Any, ...], AttributionMap] = OrderedDict()
        self._logits: dict[int, Float[Tensor, "classes"]] = {}
        self._box_logits: dict[tuple[int, ...], Float[Tensor, "classes"]] = {}
        self._blank_logits: Float[Tensor, "classes"] | None = None

        self.gallery = Gallery()
        self.upload = Upload()
        self.method_list = ipywidgets.SelectMultiple(
            options=runnable, value=chosen, rows=7, description="methods", tooltip="Ctrl or Shift for several"
        )
        self.opacity = ipywidgets.FloatSlider(0.6, min=0, max=1, step=0.05, description="opacity")
        self.colours = ipywidgets.Dropdown(options=COLOUR_MAPS, description="colours")
        self.part = ipywidgets.Dropdown(options=PARTS, description="signs")
        self.mode = ipywidgets.ToggleButtons(options=[("choose a patch", "choose"), ("drag a box", "box")])
        self.photo = Picture(label="The photo", rows=model.grid[0], cols=model.grid[1])
        self.photo.neighbours = [list(offset) for offset in find_neighbourhood(NEIGHBOURHOOD)]
        self.overlays: dict[str, Picture] = {}
        self._pictures = wrapped()
        self._details = ipywidgets.HTML()
        modes = [self.mode] if isinstance(model, HookedViT) else []
        self._lay_out(
            [
                group("image", self.gallery, self.upload),
                group("class", self.target_box),
                group("methods", self.method_list),
                group("look", self.opacity, self.colours, self.part, *modes),
            ],
            self._pictures,
            self._details,
        )
        self._show_gallery()
        self.target_box.on_choice(self._update, self._on)
        self._on(self.gallery, "chosen", self._update)
        self._on(self.method_list, "value", self._update)
        self._on(self.upload, "file", self._on_file)
        self._on(self.upload, "problem", lambda: self._show_message(self.upload.problem[1]))
        for control in (self.colours, self.part):
            self._on(control, "value", self._draw)
        self._on(self.opacity, "value", self._set_opacity)
        self._on(self.mode, "value", self._set_mode)
        self._watch(self.photo)
        with self._shown_errors():
            self._update()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods shown."""
        return self.method_list.value or _default_methods(self.method_list.options)

    @property
    def target(self) -> Any:
        """What is explained: a class's index, or a contrast or the like; None while no prediction is known yet."""
        target = self._target
        return None if target is None else target.given

    @property
    def _target(self) -> Target | None:
        logits = self._logits.get(self.gallery.chosen)
        return self.target_box.resolved(None if logits is None else int(logits.argmax()))

    @property
    def maps(self) -> dict[str, AttributionMap]:
        """The maps of this image and class that are computed, by method."""
        maps = {name: self._map(name) for name in self.methods}
        return {name: m for name, m in maps.items() if m is not None}

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        photo, target = self.photos[self.gallery.chosen], self.target
        ending = f"{photo.call}, target={target_call(target)})"
        lines = [
            f"cl.caap(model, {ending}"
            if name == "caap"
            else f"cl.attribute(model, {photo.call}, {name!r}, target={target_call(target)})"
            for name in self.methods
        ]
        if self.photo.box:
            lines += insert_box_calls(photo.call, self.photo.box, self._cutoff, BLANK)
        return "\n".join(lines)

    @property
    def file_name(self) -> str:
        """What saved files are called: the model and the image."""
        return f"{self.model.model_name} {self.photos[self.gallery.chosen].name}"

    def to_figure(self) -> Figure:
        """Photo and maps with their scales, and the chosen patch and box."""
        photo = self.photos[self.gallery.chosen]
        return explore_figure(
            f"{self.model.model_name}: {photo.name}",
            photo.pixels,
            self.maps,
            self.model.grid,
            self.photo.chosen,
            self.photo.box,
            self.opacity.value,
            self._colour_map,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per method and patch: its score, and its rank from the highest, 1, on."""
        tables = []
        for name, m in self.maps.items():
            _, cols = m.grid
            scores = m.scores.flatten().numpy()
            place = np.arange(scores.size)
            tables.append(
                pd.DataFrame(
                    {
                        "image": self.photos[self.gallery.chosen].name,
                        "method": name,
                        "target": m.target_name,
                        "row": place // cols,
                        "col": place % cols,
                        "score": scores,
                        "rank": pd.Series(scores).rank(ascending=False, method="first").astype(int),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    # -- what happens ------------------------------------------------------------------------------------------------

    @property
    def _cutoff(self) -> int:
        return cutoff_blocks(None, self.model.n_layers)

    @property
    def _colour_map(self) -> str | None:
        return None if self.colours.value == COLOUR_MAPS[0] else self.colours.value

    def _show_gallery(self) -> None:
        self.gallery.names = [photo.name for photo in self.photos]
        self.gallery.pictures = [photo.thumbnail for photo in self.photos]

    def _on_file(self) -> None:
        name, content = self.upload.file
        if not name:
            return
        self.photos.append(uploaded(self.model, name, content))
        self._show_gallery()
        self.gallery.chosen = len(self.photos) - 1

    def _set_mode(self) -> None:
        for picture in (self.photo, *self.overlays.values()):
            picture.mode = self.mode.value

    def _set_opacity(self) -> None:
        """The browser applies it: no picture is sent again. Only the one in the saved notebook is drawn again."""
        for picture in self.overlays.values():
            picture.opacity = self.opacity.value
        self._changed()

    def _watch(self, picture: Picture) -> None:
        def chosen() -> None:
            for other in (self.photo, *self.overlays.values()):
                other.chosen = picture.chosen
            self._describe()

        def boxed() -> None:
            for other in (self.photo, *self.overlays.values()):
                other.box = picture.box
            self._update()

        self._on(picture, "chosen", chosen)
        self._on(picture, "box", boxed)

    def _update(self) -> None:
        """Show what is known for the present image, class and methods, and compute the rest."""
        for name in [name for name in self.overlays if name not in self.methods]:
            close_all(self.overlays.pop(name))
        for name in self.methods:
            if name not in self.overlays:
                self.overlays[name] = Picture(
                    rows=self.model.grid[0],
                    cols=self.model.grid[1],
                    neighbours=self.photo.neighbours,
                    mode=self.mode.value,
                    opacity=self.opacity.value,
                    chosen=self.photo.chosen,
                    box=self.photo.box,
                )
                self._watch(self.overlays[name])
        self._pictures.children = (self.photo, *(self.overlays[name] for name in self.methods))
        self._draw()
        self._replace_jobs(self._jobs())

    def _jobs(self) -> list[Job]:
        place = self.gallery.chosen
        jobs = []
        if place not in self._logits:
            jobs.append(Job(("logits", place), lambda: self._run_logits(place), self._on_logits(place)))
        box = tuple(self.photo.box)
        if box and (place, *box) not in self._box_logits:
            jobs.append(Job(("box", place, box), lambda: self._run_box(place, box), self._on_box(place, box)))
        wanted = self.target_box.target
        names = list(dict.fromkeys([*self.methods, *(["caap"] if "caap" in self.method_list.options else [])]))
        for name in names:
            if self._map(name) is None:
                jobs.append(
                    Job(("map", place, name, wanted), self._run_map(place, name, wanted), self._on_map(place, name))
                )
        return jobs

    def _run_logits(self, place: int) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            logits = self._copy(self.photos[place].x)[0].float().cpu()
            blank = blank_image(self._copy, BLANK)
            assert blank is not None  # a name of an image
            return logits, self._copy(blank)[0].float().cpu()

    def _on_logits(self, place: int) -> Any:
        def receive(logits: tuple[Tensor, Tensor]) -> None:
            self._logits[place], self._blank_logits = logits
            self._draw()

        return receive

    def _run_map(self, place: int, name: str, wanted: Any) -> Any:
        def run() -> Any:
            return attribute(self._copy, self.photos[place].x, name, wanted, progress=False)

        return run

    def _on_map(self, place: int, name: str) -> Any:
        def receive(m: AttributionMap) -> None:
            serves_all_classes = m.all_scores is not None or not METHODS[name].class_specific
            if serves_all_classes:
                self._maps[(place, name, None)] = m
            if not serves_all_classes or isinstance(m.target, Direction):
                self._maps[(place, name, m.target)] = m
            while len(self._maps) > KEPT:
                self._maps.popitem(last=False)
            self._draw()

        return receive

    def _run_box(self, place: int, box: tuple[int, ...]) -> Tensor:
        assert isinstance(self._copy, HookedViT)
        return insert_box(self._copy, self.photos[place].x, box, self._cutoff, BLANK)

    def _on_box(self, place: int, box: tuple[int, ...]) -> Any:
        def receive(logits: Tensor) -> None:
            self._box_logits[(place, *box)] = logits
            self._describe()

        return receive

    def _map(self, name: str) -> AttributionMap | None:
        place, target = self.gallery.chosen, self.target
        if target is None:
            return None
        of_all_classes = self._maps.get((place, name, None))
        needs_its_own = isinstance(target, Direction) and METHODS[name].class_specific  # a direction is no class
        if of_all_classes is None or needs_its_own:
            return self._maps.get((place, name, target))
        return of_all_classes.for_target(target) if of_all_classes.all_scores is not None else of_all_classes

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        photo = self.photos[self.gallery.chosen]
        self.photo.photo = photo.png
        self.photo.caption = photo.name
        self.photo.label = f"The photo {photo.name}"
        logits, target = self._logits.get(self.gallery.chosen), self._target
        if logits is not None:
            self.target_box.suggest(probabilities(logits))
        caap_map = self._map("caap")
        for name, picture in self.overlays.items():
            m = self._map(name)
            picture.photo = photo.grey_png
            if m is None:
                picture.overlay, picture.tips = b"", []
                picture.caption = picture.label = f"{name}: computing"
                continue
            picture.rows, picture.cols = m.grid
            picture.overlay = png(map_colours(m, self._colour_map, self.part.value))
            low, high = map_range(m)
            picture.caption = f"{map_title(name, m)}, colours {low:.3g} to {high:.3g}"
            picture.label = f"Map of {map_title(name, m)}"
            picture.tips = patch_tips(m, caap_map, self.model.class_names)
        self.photo.tips = [] if caap_map is None else patch_tips(caap_map, caap_map, self.model.class_names)
        if target is not None:
            name = f"'{target.name}'" if isinstance(target.given, int) else target.name
            known = logits is not None and target.has_probability
            share = f" {float(target.probability(cast(Tensor, logits))):.1%}" if known else ""
            self.photo.caption = f"{photo.name}: {name}{share}" if logits is not None else target.name
        self._describe()

    def _describe(self) -> None:
        """The classes that the chosen patch or box speaks for, in a table."""
        parts = [self._patch_table(), self._box_table()]
        tables = "".join(f'<div style="margin-right:32px">{part}</div>' for part in parts if part)
        self._details.value = f'<div style="display:flex;flex-wrap:wrap">{tables}</div>'
        self._changed()

    def _patch_table(self) -> str:
        m = self._map("caap") if "caap" in self.method_list.options else None
        if not self.photo.chosen or m is None or m.all_scores is None:
            return ""
        row, col = self.photo.chosen
        if not (row < m.grid[0] and col < m.grid[1]):
            return ""
        title = f"Patch at row {row}, column {col}, inserted with its neighbours ({NEIGHBOURHOOD}) into the blank"
        return self._table(title, m.all_scores[row, col])

    def _box_table(self) -> str:
        box = self.photo.box
        logits = self._box_logits.get((self.gallery.chosen, *box)) if box else None
        if logits is None:
            return ""
        top, left, bottom, right = box
        title = (
            f"Box, rows {top} to {bottom}, columns {left} to {right}, inserted into the blank ({self._cutoff} blocks)"
        )
        return self._table(title, logits)

    def _table(self, title: str, logits: Float[Tensor, "classes"]) -> str:
        others = {"whole image": self._logits.get(self.gallery.chosen), "blank": self._blank_logits}
        index, against = compared_classes(self._target)
        return class_table(title, logits, others, index, self.model, against)


def _default_methods(runnable: Sequence[str]) -> tuple[str, ...]:
    """CAAP where it runs, otherwise the first method that does."""
    return ("caap",) if "caap" in runnable else tuple(runnable[:1])
