"""Patching widget: choose patches of one photo, insert their activations into another, and watch the classes."""

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from caap_lab.activations.patch import Patch
from caap_lab.data.image_set import ImageSet
from caap_lab.engine.settings import DEFAULTS
from caap_lab.models.base import Images, check_kind
from caap_lab.models.explained import explained
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import Direction, Target, TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.board import Board, colour_tile, photo_tile
from caap_lab.widgets.boxes import box_cells, paint_box
from caap_lab.widgets.panel import PAUSE, Panel, group
from caap_lab.widgets.patch_calls import patch_calls
from caap_lab.widgets.patch_controls import PatchControls
from caap_lab.widgets.patch_figure import patch_figure
from caap_lab.widgets.patch_history import PatchHistory
from caap_lab.widgets.patch_photos import PatchPhotos
from caap_lab.widgets.patch_result import PatchResult, classes_html, score_html, score_name
from caap_lab.widgets.patch_runs import Logits, PatchRuns
from caap_lab.widgets.patch_settings import SOURCE, PatchSettings, neighbours_of
from caap_lab.widgets.patch_words import photos_words, point_words, put_in_words, tokens_words
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.target_box import TargetBox

if TYPE_CHECKING:
    import pandas as pd

KEPT = 64
"""Number of patches whose logits are kept in memory."""
REMEMBERED = 8
"""Rows of the history."""
TINT = 140
"""Opacity (of 255) of patches on the target photo: that of the painted ones on the source photo."""
EMPTY = '<div class="caap-effect">No patch is chosen: click, paint or draw a box on the source photo.</div>'


def patch(model: HookedViT, images: Images | ImageSet, target: TargetLike | None = None) -> "PatchView":
    """Insert activations of one photo into another by hand, and watch the classes change.

    ```python
    cl.widgets.patch(model, [dog, cat])
    ```

    Click patches of the source photo, paint over them or draw a box; they are inserted at the same places of the target
    photo. Choose the point, the layers and heads, and the replacement. Each change runs immediately.

    Args:
        model: A Vision Transformer.
        images: One image or several, demo scenes, or a data set. The first is the source and the second the target; if
            there is only one, the target is a white blank. More can be uploaded.
        target: The scored target: a class, `cl.contrast(a, b)` and the like; None for the class predicted for the
            source photo, or for the target photo if nothing of the source photo is inserted.

    Returns:
        The widget. `result` has the logits before and after, `patches` the argument of `model.run_patched`, `link` the
        Python calls, and `to_figure()` the current state.

    Raises:
        InputError: an argument is invalid.
    """
    return PatchView(model, images, target)


class PatchView(Panel):
    """The widget of `patch`."""

    def __init__(self, model: HookedViT, images: Images | ImageSet, target: TargetLike | None) -> None:
        check_kind(model, "widgets.patch")
        given = photos_of(model, images)
        self.target_box = TargetBox(model, target)  # checked last: nothing has to be closed if it fails
        super().__init__()
        self.model = model
        copy = cancellable_copy(model)
        if isinstance(self.target_box.target, Direction):
            copy, _ = explained(copy, self.target_box.target, 1)
        self._runs = PatchRuns(copy)
        self._known: OrderedDict[PatchSettings, tuple[Logits, list[Patch]]] = OrderedDict()
        self._likeliest: dict[Any, Float[Tensor, "columns"]] = {}
        self._remembered: dict[PatchSettings, Logits] = {}
        """The patches in the history, the newest first."""
        self._restoring = False
        self.photos = PatchPhotos(model, given)
        self.controls = PatchControls(model)
        rows, cols = model.grid
        self.board = Board(
            tools=["modes"], modes=["paint", "erase", "box"], mode="paint", largest=560, label="Source and target photo"
        )
        self.board.painted = box_cells(model.grid, (rows // 4, cols // 4, (3 * rows - 1) // 4, (3 * cols - 1) // 4))
        self.history = PatchHistory()
        self._score, self._classes = ipywidgets.HTML(), ipywidgets.HTML()
        effects = ipywidgets.VBox([self._classes, self.history])
        side_by_side = ipywidgets.Box([self.board, effects])
        side_by_side.add_class("caap-patch")
        self._lay_out(
            [
                group("Source photo", self.photos.source),
                group("Target photo", self.photos.target),
                *self.controls.groups,
                group("Class", self.target_box),
            ],
            self._score,
            side_by_side,
        )
        self._watch()
        with self._shown_errors():
            self._update()

    def _watch(self) -> None:
        controls = self.controls
        for picker in (self.photos.source, self.photos.target):
            self._on(picker, "chosen", self._update)
            self._on(picker, "file", partial(self.photos.add, picker))
        self._on(controls.point, "value", self._change_point)
        for control in (controls.layers, controls.put_in, controls.others):
            self._on(control, "value", self._update)
        for row in (controls.heads, controls.prefix):
            self._on(row, "chosen", self._update)
        self._on(self.board, "painted", self._update)
        self._on(self.board, "chosen", self._toggle)
        self._on(self.board, "box", lambda: paint_box(self.board, self.model.grid))
        self._on(self.history, "chosen", self._come_back)
        self.target_box.on_choice(self._update, self._on)
        controls.every.on_click(lambda _: self._choose(range(self.model.spec.n_patches)))
        controls.clear.on_click(lambda _: self._set(self.settings._replace(cells=(), prefix=())))
        controls.as_caap.on_click(lambda _: self._as_caap())

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> PatchSettings:
        """The current settings, as `caap_lab.widgets.patch_settings` defines them."""
        controls = self.controls
        return PatchSettings(
            source=self.photos.chosen(self.photos.source),
            target=self.photos.chosen(self.photos.target),
            point=controls.point.value,
            layers=controls.layers.value,
            cells=tuple(self.board.painted),
            prefix=tuple(controls.prefix.chosen),
            heads=tuple(controls.heads.chosen),
            put_in=controls.put_in.value,
            others=controls.others.value,
        ).cleaned()

    @property
    def patches(self) -> list[Patch]:
        """The argument of `model.run_patched`: the patch, after the one that holds the other tokens, if they are held.

        Empty until it is computed, or if no token is chosen.
        """
        known = self._known.get(self.settings)
        return [] if known is None else known[1]

    @property
    def patch(self) -> Patch | None:
        """The patch itself; None until it is computed, or if no token is chosen."""
        return self.patches[-1] if self.patches else None

    @property
    def result(self) -> PatchResult | None:
        """Logits before and after, equal if no token is chosen; None until computed, or if the patch is invalid."""
        known, target = self._known.get(self.settings), self._target
        if known is None or target is None:
            return None
        logits, count = known[0], self.model.n_classes
        scores = {run: _score(target, values) for run, values in logits._asdict().items()}
        runs = {run: values[:count] for run, values in logits._asdict().items()}
        return PatchResult(**runs, target=target, scores=scores, names=self.model.class_names)

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        return "\n".join(patch_calls(self.model, self.settings, self.photos.photos, self._row))

    @property
    def file_name(self) -> str:
        """Name of saved files."""
        return f"{self.model.model_name} patch {photos_words(self.settings).replace('→', 'into')}"

    def to_figure(self) -> Figure:
        """Source and target with the chosen patches, and the likeliest classes before and after."""
        settings = self.settings
        what = f"{point_words(settings)} by {put_in_words(settings)}"
        photos = {f"source: {settings.source.name}": settings.source.pixels}
        photos[f"target: {settings.target.name}"] = settings.target.pixels
        return patch_figure(photos, self._colours(settings), self.result, what)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per class: logits and probabilities before, after and of the source photo; empty until computed."""
        import pandas as pd

        return pd.DataFrame() if self.result is None else self.result.to_dataframe()

    @property
    def _row(self) -> int:
        """Index of the photo that gets another one's activations: the target, if it is not a blank."""
        photos, target = self.photos.photos, self.photos.chosen(self.photos.target)
        return photos.index(target) if target in photos else 0

    @property
    def _scored_photo(self) -> Any:
        """The photo whose predicted class is scored by default."""
        settings = self.settings
        from_source = settings.put_in == SOURCE and not self.photos.is_blank(settings.source)
        return settings.source if from_source else settings.target

    @property
    def _target(self) -> Target | None:
        logits = self._likeliest.get(self._scored_photo)
        return self.target_box.resolved(None if logits is None else int(logits[: self.model.n_classes].argmax()))

    # -- events ------------------------------------------------------------------------------------------------------

    def _change_point(self) -> None:
        self.controls.fit()
        self._update()

    def _choose(self, cells: Any) -> None:
        self.board.painted = list(cells)

    def _toggle(self) -> None:
        """Add or remove a clicked patch of the target photo, on which one cannot paint."""
        if self.board.chosen:
            row, col = self.board.chosen
            self.board.chosen = []
            self._choose(sorted({*self.board.painted} ^ {row * self.model.grid[1] + col}))

    def _as_caap(self) -> None:
        """Set CAAP's patch for the chosen patches, with CAAP's default settings."""
        controls, cells = self.controls, list(self.board.painted)
        if len(cells) == 1:
            cells = neighbours_of(self.model, cells[0], DEFAULTS["neighbourhood"])
        blank = next(place for place, photo in enumerate(self.photos.every) if self.photos.is_blank(photo))
        settings = self.settings._replace(
            target=self.photos.every[blank],
            point=controls.named("resid_pre"),
            layers=(0, controls.cutoff(self.model) - 1),
            cells=tuple(cells),
            prefix=(),
            heads=(),
            put_in=SOURCE,
            others="held",
        )
        self._set(settings)

    def _come_back(self) -> None:
        remembered = list(self._remembered)
        if 0 <= self.history.chosen < len(remembered) and remembered[self.history.chosen] != self.settings:
            self._set(remembered[self.history.chosen])

    def _remember(self, settings: PatchSettings) -> None:
        """Put a patch that has been set for a while on top of the history; one already there keeps its place."""
        if settings == self.settings and settings not in self._remembered:
            kept = {settings: self._known[settings][0], **self._remembered}
            self._remembered = dict(list(kept.items())[:REMEMBERED])
            self._show_history()

    def _show_history(self) -> None:
        target = self._target
        rows = []
        for settings, logits in self._remembered.items():
            before, after = (0.0, 0.0) if target is None else (_score(target, logits[run]) for run in (0, 1))
            row = {"where": tokens_words(self.model, settings), "what": point_words(settings)}
            row |= {"by": put_in_words(settings), "into": photos_words(settings)}
            rows.append({**row, "effect": f"{after - before:+.3f}", "rises": after >= before})
        shown, remembered = self.settings, list(self._remembered)
        with self.history.hold_sync():
            self.history.effect = "" if target is None else score_name(target)
            self.history.rows = rows
            self.history.chosen = remembered.index(shown) if shown in remembered else -1

    def _set(self, settings: PatchSettings) -> None:
        """Set all controls, and run once."""
        controls, photos = self.controls, self.photos
        self._restoring = True
        try:
            photos.source.chosen = photos.every.index(settings.source)
            photos.target.chosen = photos.every.index(settings.target)
            controls.point.value = settings.point
            if settings.point.in_blocks:
                controls.layers.value = settings.layers
            controls.heads.chosen, controls.prefix.chosen = list(settings.heads), list(settings.prefix)
            controls.put_in.value, controls.others.value = settings.put_in, settings.others
            self.board.painted = list(settings.cells)
        finally:
            self._restoring = False
        self._update()

    def _update(self) -> None:
        """Show the current patch, and run it if its result is not known."""
        if self._restoring:
            return
        settings = self.settings
        self._draw()
        photos, row = self.photos.photos, self._row
        run = Job(settings, lambda: self._runs.logits(settings, photos, row), self._on_logits(settings))
        self._replace_jobs([] if settings in self._known else [run])

    def _on_logits(self, settings: PatchSettings) -> Any:
        def receive(found: tuple[Logits, list[Patch]]) -> None:
            self._known[settings] = found
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            self._likeliest[settings.source] = found[0].source
            self._likeliest[settings.target] = found[0].before
            self._draw()

        return receive

    # -- display -----------------------------------------------------------------------------------------------------

    def _colours(self, settings: PatchSettings) -> UInt8[np.ndarray, "row col 4"]:
        colours = np.zeros((self.model.spec.n_patches, 4), dtype=np.uint8)
        if settings.point.has_tokens:
            colours[list(settings.cells)] = [*bytes.fromhex(self.board.brush[1:]), TINT]
        return colours.reshape(*self.model.grid, 4)

    def _draw(self) -> None:
        settings, grid = self.settings, self.model.grid
        source, into = settings.source, settings.target
        with self.board.hold_sync():
            self.board.photos = {"source": source.png, "target": into.png}
            self.board.tiles = [
                photo_tile("source", "source", f"source: {source.name}", grid, paint=True),
                colour_tile("target", "target", f"target: {into.name}", self._colours(settings)),
            ]
        logits = self._likeliest.get(self._scored_photo)
        if logits is not None:
            self.target_box.suggest(probabilities(logits[: self.model.n_classes]))
        result = self.result
        if result is not None:
            empty = settings.is_empty(self.model)
            self._score.value = EMPTY if empty else score_html(result, settings.put_in == SOURCE)
            self._classes.value = classes_html(result)
            if not empty and self._later(PAUSE, lambda: self._remember(settings)) is None:
                self._remember(settings)
        self._show_history()
        self._changed()

    def _show_error(self, error: Exception) -> None:
        super()._show_error(error)
        self._score.value = self._classes.value = ""  # they belong to another patch


def _score(target: Target, logits: Float[Tensor, "columns"]) -> float:
    return float(target.value(logits[None])[0])
