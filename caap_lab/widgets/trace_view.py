"""Causal-tracing widget: paint patches to corrupt, and see which tokens and heads restore the answer."""

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.escaping import for_html
from caap_lab.mechanisms.pairs import DIRECTIONS
from caap_lab.mechanisms.trace import trace as trace_pairs
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.models.base import Images, check_kind
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.board import Board, Ends, map_tile, photo_tile
from caap_lab.widgets.boxes import paint_box
from caap_lab.widgets.class_table import class_table
from caap_lab.widgets.effects import UNPATCHED, effect_limits
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.pixels import png
from caap_lab.widgets.target_box import TargetBox, compared_classes, target_call
from caap_lab.widgets.trace_figure import trace_figure
from caap_lab.widgets.trace_grids import TraceGrids
from caap_lab.widgets.trace_words import cell_words, gap_warning, traced_frame
from caap_lab.widgets.traced_image import (
    CORRUPTIONS,
    OTHER,
    Cell,
    Options,
    Traced,
    calls,
    cell_logits,
    corrupted_image,
)

if TYPE_CHECKING:
    import pandas as pd

POINTS = ("resid_pre", "attn_out", "mlp_out")
KEPT = 16
"""Number of settings whose traces are kept in memory."""
UNIT = "effect (0 corrupted, 1 clean)"


def trace(
    model: HookedViT, clean: Images, corrupted: Images | None = None, target: TargetLike | None = None
) -> "TraceView":
    """Paint patches to corrupt, and see which tokens and heads carry the difference between the two images.

    ```python
    cl.widgets.trace(model, photo)
    ```

    Paint patches of the photo to corrupt them (blurred, noised, blank, or from the other image); if nothing is painted,
    all are corrupted. The effect of every token appears layer by layer, and that of every head: 0 is the corrupted
    image's score, 1 the clean one's (see `caap_lab.trace`). Click a layer, then a patch, a prefix token or a head, for
    the likeliest classes of the run into which it is inserted.

    Args:
        model: A Vision Transformer.
        clean: One image.
        corrupted: Another image, whose patches can replace those of the first one.
        target: The scored target: a class, `cl.contrast(a, b)` and the like; None for the clean image's predicted class
            rather than the corrupted image's.

    Returns:
        The widget. `traced` are the traces shown, `to_figure()` returns them as a figure, `link` the Python calls.

    Raises:
        InputError: an argument is invalid.
    """
    return TraceView(model, clean, corrupted, target)


class TraceView(Panel):
    """The widget of `trace`."""

    def __init__(self, model: HookedViT, clean: Images, corrupted: Images | None, target: TargetLike | None) -> None:
        check_kind(model, "widgets.trace")
        photos = photos_of(model, clean)
        others = [] if corrupted is None else photos_of(model, corrupted)
        if len(photos) != 1 or len(others) > 1:
            raise InputError("widgets.trace shows one clean and at most one corrupted image; cl.trace accepts several.")
        self.target_box = TargetBox(model, target)  # checked last: nothing has to be closed if it fails
        super().__init__()
        self.model, self.photo = model, photos[0]
        self.other = next((replace(one, call="other") if one.call == "image" else one for one in others), None)
        self._copy = cancellable_copy(model)
        self._known: OrderedDict[Options, Traced] = OrderedDict()
        self.cell: Cell | None = None
        """The token or head whose run is described."""
        how = [*([] if self.other is None else [OTHER]), *CORRUPTIONS]
        self.how = ipywidgets.Dropdown(options=how, description="corrupt by")
        self.direction = ipywidgets.Dropdown(options=DIRECTIONS, description="direction")
        self.point = ipywidgets.Dropdown(options=POINTS, description="tokens of")
        self.clear = ipywidgets.Button(description="corrupt all", tooltip="Clear the painted patches")
        self.swap = ipywidgets.Button(description="swap images", tooltip="Make the other image the clean one")
        self.board = Board(
            tools=["modes", "opacity", "fade", "smooth", "top"],
            modes=["paint", "erase", "box"],
            mode="paint",
            smallest=180,
            largest=420,
            label="Clean image, corrupted image and the effects of patches",
        )
        self.grids = TraceGrids(model)
        self._notice, self._details = ipywidgets.HTML(), ipywidgets.HTML()
        below = ipywidgets.Box([*self.grids.shown, self._details])
        below.add_class("caap-traced")
        buttons = ipywidgets.HBox([self.clear, *([] if self.other is None else [self.swap])])
        buttons.add_class("caap-patch-buttons")
        self._lay_out(
            [
                group("Corruption", self.how, buttons),
                group("Trace", self.direction, self.point),
                group("Class", self.target_box),
            ],
            self._notice,
            self.board,
            below,
        )
        for control in (self.how, self.direction, self.point):
            self._on(control, "value", self._update)
        self._on(self.board, "painted", self._update)
        self._on(self.board, "box", lambda: paint_box(self.board, self.model.grid))
        self._on(self.board, "chosen", self._choose_patch)
        for name in self.board.look:
            self._on(self.board, name, self._changed)
        self.clear.on_click(lambda _: self.board.set_trait("painted", []))
        self.swap.on_click(lambda _: self._swap())
        self.target_box.on_choice(self._update, self._on)
        self._on(self.grids.layers, "chosen", self._go)
        self._on(self.grids.prefix, "chosen", lambda: self._choose("token", *self.grids.prefix.chosen))
        self._on(self.grids.heads, "chosen", lambda: self._choose("head", *self.grids.heads.chosen))
        with self._shown_errors():
            self._update()

    @property
    def options(self) -> Options:
        """Options shared by all traces shown."""
        painted, target = tuple(self.board.painted), self.target_box.target
        return Options(self.photo, self.how.value, painted, self.direction.value, target)

    @property
    def layer(self) -> int:
        """The layer whose patches are shown large."""
        return int(self.grids.layers.chosen[0])

    @property
    def traced(self) -> dict[Any, Trace]:
        """The traces computed so far: by layer those of tokens, and "heads"."""
        here = self._here
        found: dict[Any, Trace] = {
            layer: traced for (point, layer), traced in sorted(here.tokens.items()) if point == self.point.value
        }
        return found if here.heads is None else {**found, "heads": here.heads}

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        other = "" if self.other is None else self.other.call
        wanted = target_call(self.target_box.target)
        return "\n".join(
            calls(self.photo.call, other, self.options, wanted, self.point.value, self.cell, self.model.grid)
        )

    @property
    def file_name(self) -> str:
        """Name of saved files."""
        return f"{self.model.model_name} trace {self.photo.name} {self.how.value}"

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per layer and token or head: its effect, as far as it is computed."""
        return traced_frame(self._effects(), self._here.heads, self.point.value, self.model.spec)

    def to_figure(self) -> Figure:
        """Both images, the effects of this layer's patches, and those of all heads."""
        here, spec = self._here, self.model.spec
        effects = self._effects()
        known = bool(np.isfinite(effects[self.layer]).all())
        heads = None if here.heads is None else here.heads.mean
        return trace_figure(
            {"clean": self.photo.pixels, f"corrupted: {self.how.value}": self._pixels(here.corrupted)},
            effects[self.layer, spec.n_prefix :].reshape(spec.grid) if known else None,
            heads,
            limits=self._limits(effects[:, spec.n_prefix :]),
            head_limits=self._limits(np.zeros(1) if heads is None else heads),
            board=self.board,
            label=UNIT,
            titles=(f"{self.point.value}, layer {self.layer}, {self.direction.value}", f"heads (z): {here.target}"),
        )

    # -- events ------------------------------------------------------------------------------------------------------

    @property
    def _here(self) -> Traced:
        options = self.options
        if options not in self._known:
            other = None if self.other is None else self.other.x
            self._known[options] = Traced(
                corrupted_image(self.model, options.clean.x, other, options.how, options.painted)
            )
        self._known.move_to_end(options)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return self._known[options]

    def _swap(self) -> None:
        """Swap the clean and the other image."""
        assert self.other is not None  # otherwise there is no button
        self.photo, self.other = self.other, self.photo
        self._show_message("")
        with self._shown_errors():
            self._update()

    def _go(self) -> None:
        """Show a different layer, with the same token or head."""
        if self.cell is not None:
            self.cell = self.cell._replace(layer=self.layer)
        self._mark()
        self._update()

    def _choose_patch(self) -> None:
        if self.board.chosen:
            row, col = self.board.chosen
            self._choose("token", self.layer, self.model.spec.n_prefix + row * self.model.grid[1] + col)

    def _choose(self, kind: str, layer: int, number: int) -> None:
        if layer < 0 or self.cell == (kind, layer, number):
            return
        self.cell = Cell(kind, layer, number)
        if layer != self.layer:
            self.grids.layers.chosen = [layer, 0]  # this also marks and updates
        else:
            self._mark()
            self._update()

    def _mark(self) -> None:
        """Outline the chosen cell, and nothing in the other maps."""
        cell, first, cols = self.cell, self.model.spec.n_prefix, self.model.grid[1]
        if cell is None:
            return
        patch = cell.kind == "token" and cell.number >= first
        place = [cell.layer, cell.number]
        self.board.chosen = list(divmod(cell.number - first, cols)) if patch else []
        self.grids.prefix.chosen = place if cell.kind == "token" and not patch else [-1, -1]
        self.grids.heads.chosen = place if cell.kind == "head" else [-1, -1]

    def _update(self) -> None:
        """Show what is known for these settings, and compute the rest, this layer first."""
        self._draw()
        here, options, point, cell = self._here, self.options, self.point.value, self.cell
        jobs = []
        if not here.ends:
            jobs.append(Job(("ends", options), lambda: self._run_ends(here, options), self._on_ends(here)))
        if cell is not None and (point, cell) not in here.logits:
            key = ("cell", options, point, cell)
            jobs.append(Job(key, lambda: self._run_cell(here, options, point, cell), self._on_cell(here, point, cell)))
        for layer in sorted(range(self.model.n_layers), key=lambda layer: abs(layer - self.layer)):
            if (point, layer) not in here.tokens:
                run = self._run_trace(here, options, points=point, layers=layer)
                jobs.append(Job(("tokens", options, point, layer), run, self._on_tokens(here, point, layer)))
            if layer == self.layer and here.heads is None:
                run = self._run_trace(here, options, points="z", by="head")
                jobs.append(Job(("heads", options), run, self._on_heads(here)))
        self._replace_jobs(jobs)

    @torch.no_grad()
    def _run_ends(self, here: Traced, options: Options) -> dict[str, Tensor]:
        both = {"clean": options.clean.x, "corrupted": here.corrupted}
        return {name: self._copy(x)[0].float().cpu() for name, x in both.items()}

    def _on_ends(self, here: Traced) -> Any:
        def receive(ends: dict[str, Tensor]) -> None:
            here.ends = ends
            self.target_box.suggest(probabilities(ends["clean"]))
            self._draw()

        return receive

    def _run_cell(self, here: Traced, options: Options, point: str, cell: Cell) -> Tensor:
        pair = (options.clean.x, here.corrupted)
        given, receiver = pair if options.direction == "denoise" else pair[::-1]
        return cell_logits(self._copy, given, receiver, point, cell)

    def _on_cell(self, here: Traced, point: str, cell: Cell) -> Any:
        def receive(logits: Tensor) -> None:
            here.logits[point, cell] = logits
            self._describe()

        return receive

    def _run_trace(self, here: Traced, options: Options, **places: Any) -> Any:
        def run() -> Trace:
            images = (self._copy, options.clean.x, here.corrupted, options.target)
            return trace_pairs(*images, direction=options.direction, progress=False, **places)

        return run

    def _on_tokens(self, here: Traced, point: str, layer: int) -> Any:
        def receive(traced: Trace) -> None:
            here.tokens[point, layer] = traced
            self._draw()

        return receive

    def _on_heads(self, here: Traced) -> Any:
        def receive(traced: Trace) -> None:
            here.heads = traced
            self._draw()

        return receive

    # -- display -----------------------------------------------------------------------------------------------------

    def _effects(self) -> Float[np.ndarray, "layer token"]:
        spec = self.model.spec
        return self._here.effects(self.point.value, spec.n_layers, spec.n_tokens)

    def _limits(self, effects: np.ndarray) -> Ends:
        return effect_limits(effects, self.direction.value)

    def _pixels(self, x: Tensor) -> UInt8[np.ndarray, "height width 3"]:
        return self.model.preprocessing.to_rgb(x[0])

    def _draw(self) -> None:
        here, spec, layer, direction = self._here, self.model.spec, self.layer, self.direction.value
        effects = self._effects()
        patches = effects[:, spec.n_prefix :]
        limits = self._limits(patches)
        painted = len(self.board.painted)
        known = bool(np.isfinite(patches[layer]).any())
        scale = "" if here.heads is None else here.heads.scale_words
        clean = f"clean; {painted or 'all'} patch{'es' * (painted != 1)} corrupted"
        words = f"layer {layer}, {self.point.value}: {here.target or 'computing'}"
        with self.board.hold_sync():
            self.board.photos = {"clean": self.photo.png, "corrupted": png(self._pixels(here.corrupted))}
            self.board.tiles = [
                photo_tile("clean", "clean", clean, spec.grid, paint=True),
                photo_tile("corrupted", "corrupted", f"corrupted: {self.how.value}", spec.grid, details=scale),
                map_tile(
                    "effects",
                    "clean",
                    words,
                    patches[layer].reshape(spec.grid) if known else None,
                    spec.grid,
                    UNIT,
                    signed=True,
                    middle=UNPATCHED[direction],
                    limits=limits,
                    details=f"{words}; {direction}; {scale}",
                ),
            ]
        self.grids.draw_tokens(effects, limits, direction)
        heads = np.full((spec.n_layers, spec.n_heads), np.nan) if here.heads is None else here.heads.mean
        self.grids.draw_heads(heads, here.heads is not None, direction)
        self._notice.value = gap_warning(here)
        self._describe()

    def _describe(self) -> None:
        """The likeliest classes of the chosen cell's run, in a table."""
        here, cell = self._here, self.cell
        logits = None if cell is None else here.logits.get((self.point.value, cell))
        if cell is None or logits is None:
            waits = (
                "Click a patch, a prefix token or a head for the classes of its run." if cell is None else "computing"
            )
            self._details.value = f"<p>{for_html(waits)}</p>"
        else:
            classes = {name: values[: self.model.n_classes] for name, values in here.ends.items()}
            predicted = int(classes["clean"].argmax()) if classes else None
            of, against = compared_classes(self.target_box.resolved(predicted))
            if self.target_box.target is None and classes:
                other = int(classes["corrupted"].argmax())
                against = other if other != of else None
            source = "clean image" if self.direction.value == "denoise" else "corrupted image"
            title = f"{cell_words(cell, self.model.spec)} of the {source} inserted"
            table = class_table(title, logits, classes, of, self.model, against, "patched")
            self._details.value = table
        self._changed()
