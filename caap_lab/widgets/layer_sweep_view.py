"""Layer-sweep widget: a slider for CAAP's cutoff, with the map and its insertion and deletion curves."""

from collections import OrderedDict
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from caap_lab.attribution.caap import caap
from caap_lab.attribution.map import AttributionMap
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.settings import CONTEXTS, DEFAULTS, DIRECTIONS, cutoff_blocks
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import metric_column
from caap_lab.metrics.perturbation import FAITHFULNESS, PerturbationCurves, insertion_deletion
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS, find_neighbourhood
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import Direction, TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.plots.spans import CORRELATION, SHARE, value_span
from caap_lab.plots.style import COLOURS
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.board import Board, Ends, map_tile
from caap_lab.widgets.class_tips import class_tips
from caap_lab.widgets.curve_view import Curve, line
from caap_lab.widgets.cutoff_maps import CutoffMaps
from caap_lab.widgets.cutoff_strip import show_maps, strip
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.rows import beside
from caap_lab.widgets.sweep_calls import sweep_calls
from caap_lab.widgets.sweep_figure import sweep_figure
from caap_lab.widgets.target_box import TargetBox, target_call

PROTOCOL = "rise-28"
"""Curves of 28 steps, as the sweeps draw them."""
SECONDS_PER_STEP = 0.6
_OTHER_SETTINGS = ("start", "neighbourhood", "blank", "direction", "context")
"""All settings of a map other than the cutoff."""
KEPT = 16
"""Number of settings whose maps are kept in memory."""
FIRST = 2
"""Number of maps computed before the first curve; then they alternate, so that the chart is filled in as well."""


def layer_sweep(model: HookedModel, image: Images, target: TargetLike | None = None) -> "LayerSweep":
    """Follow CAAP's map over cutoffs and first blocks, for any blank, neighbourhood, direction and context.

    ```python
    cl.widgets.layer_sweep(model, "cat.jpg", "tabby")
    ```

    Maps are computed in the background, those of the nearest cutoffs first, then their insertion and deletion
    curves; a known map is shown at once, and work for settings that are no longer selected is dropped.

    Args:
        model: A Vision Transformer or CNN.
        image: One image.
        target: The class: index, WordNet id or word; None for the model's own prediction. Or another target, such as
            `cl.contrast("tabby", "tiger cat")`, which the class field keeps as its first suggestion.

    Returns:
        The widget. `map` is the map shown, `to_figure()` shows it with the curve over cutoffs, `link` is the call.

    Raises:
        InputError: an argument is invalid.
    """
    return LayerSweep(model, image, target)


class LayerSweep(Panel):
    """The widget of `layer_sweep`."""

    def __init__(self, model: HookedModel, image: Images, target: TargetLike | None) -> None:
        check_kind(model, "layer_sweep", ("vit", "cnn"))
        photos = photos_of(model, image)
        if len(photos) != 1:
            raise InputError(f"layer_sweep shows one image; {len(photos)} were given. cl.sweep_cutoffs takes several.")
        self.target_box = TargetBox(model, target)  # checked last: nothing has to be closed if it fails
        super().__init__()
        self.model, self.photo = model, photos[0]
        self._copy = cancellable_copy(model)
        self._known: OrderedDict[tuple[Any, ...], CutoffMaps] = OrderedDict()
        given = self.target_box.target
        self._direction = given if isinstance(given, Direction) else None
        self._predicted: int | None = None
        if self._direction is not None:  # maps of a direction do not include the prediction
            with torch.no_grad():
                self._predicted = int(model(self.photo.x)[0, : model.n_classes].argmax())

        layers = model.n_layers
        self.cutoff = ipywidgets.IntSlider(cutoff_blocks(None, layers), min=0, max=layers, description="cutoff")
        self.start = ipywidgets.IntSlider(DEFAULTS["start"], min=0, max=layers - 1, description="start")
        self.play = ipywidgets.ToggleButton(description="play", tooltip="Go through the cutoffs", icon="play")
        self._plays = 0
        self.blank = ipywidgets.Dropdown(options=BLANKS, value=DEFAULTS["blank"], description="blank")
        self.neighbourhood = ipywidgets.Dropdown(
            options=list(NEIGHBOURHOODS), value=DEFAULTS["neighbourhood"], description="neighbours"
        )
        self.direction = ipywidgets.Dropdown(options=DIRECTIONS, description="direction")
        self.context = ipywidgets.Dropdown(options=_contexts(model), description="context")
        metrics = [(column.title, column.name) for column in FAITHFULNESS.columns]
        self.metric = ipywidgets.Dropdown(options=metrics, value="insdel", description="metric")
        self.board = Board(
            ("smooth", "robust", "lock", "fade", "opacity", "colours", "signs", "top"),
            photos={"photo": self.photo.png},
            lock=True,
            largest=520,
            label="Map of CAAP",
        )
        self.curve = Curve(x=list(range(layers + 1)), x_label="cutoff (blocks patched)", title=f"curves of {PROTOCOL}")
        self.strip = strip(layers + 1, model.grid)
        self._lay_out(
            [
                group("Blocks", self.cutoff, self.start, self.play),
                group("Class", self.target_box),
                group("CAAP", self.blank, self.neighbourhood, self.direction, self.context),
                group("Chart", self.metric),
            ],
            self.strip,
            beside(self.board, self.curve),
        )
        self._on(self.play, "value", self._start_or_stop)
        self._on(self.curve, "current", lambda: self._go(self.curve.current))
        self._on(self.strip, "chosen", lambda: self._go(self.strip.chosen[1]))
        self._on(self.start, "value", self._limit)
        for control in (self.cutoff, self.start, self.blank, self.neighbourhood, self.direction, self.context):
            self._on(control, "value", self._update)
        self.target_box.on_choice(self._update, self._on)
        self._on(self.metric, "value", self._draw_chosen_metric)
        for name in ("robust", "lock", "colours"):
            self._on(self.board, name, self._draw_strip)
        for name in self.board.look:
            self._on(self.board, name, self._changed)
        with self._shown_errors():
            self._update()

    @property
    def settings(self) -> dict[str, Any]:
        """CAAP's options at the current settings of the controls."""
        return {
            "cutoff": self.cutoff.value,
            "start": self.start.value,
            "neighbourhood": self.neighbourhood.value,
            "blank": self.blank.value,
            "direction": self.direction.value,
            "context": self.context.value,
        }

    @property
    def target(self) -> Any:
        """The target: a class's index, or a contrast or the like; None if the prediction is not known yet."""
        target = self.target_box.resolved(self._predicted)
        return None if target is None else target.given

    @property
    def map(self) -> AttributionMap | None:
        """The map at the current settings, if it is computed."""
        return self._here.map(self.cutoff.value, self.target)

    @property
    def values(self) -> dict[int, float]:
        """The chosen metric by cutoff, as far as it is computed; see `insertion_deletion` with protocol "rise-28"."""
        name = self.metric.value
        return {cutoff: float(getattr(curves, name)) for cutoff, curves in self._here.curves_of(self.target).items()}

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        sweeps = isinstance(self.model, HookedViT) and self.context.value != "frozen"
        return sweep_calls(self.photo.call, target_call(self.target), self.settings, self._cutoffs() if sweeps else [])

    @property
    def file_name(self) -> str:
        """Name of saved files: the model and the image."""
        return f"{self.model.model_name} {self.photo.name} cutoff {self.cutoff.value}"

    def to_figure(self) -> Figure:
        """The map with its scale next to the metric over cutoffs, as in the browser."""
        m = self.map
        start, neighbourhood, blank, direction, context = (f"{name} {self.settings[name]}" for name in _OTHER_SETTINGS)
        return sweep_figure(
            self.photo,
            m,
            "" if m is None else f"{self.model.model_name}, {m.caption}, cutoff {self.cutoff.value}",
            self.board,
            self._here.limits(self.target, robust=self.board.robust),
            self.values,
            cutoff=self.cutoff.value,
            last=self.model.n_layers,
            labels=(self.curve.x_label, self.curve.y_label),
            settings=f"{start}, {neighbourhood}\n{blank}, {direction}, {context}; {PROTOCOL} curves",
            natural=self._natural,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per cutoff whose insertion and deletion are computed, with the settings used."""
        names = [column.name for column in FAITHFULNESS.columns]
        rows = [
            {**self.settings, "cutoff": cutoff, **{name: float(getattr(curves, name)) for name in names}}
            for cutoff, curves in self._here.curves_of(self.target).items()
        ]
        return pd.DataFrame(rows, columns=[*self.settings, *names])

    # -- events ------------------------------------------------------------------------------------------------------

    @property
    def _here(self) -> CutoffMaps:
        key = tuple(self.settings[name] for name in _OTHER_SETTINGS)
        known = self._known.setdefault(key, CutoffMaps())
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return known

    @property
    def _natural(self) -> Ends | None:
        """Bounds of the metric; None for logits and the like, which are not bounded."""
        curves = self._here.curves_of(self.target).values()
        if any(one.score_name != "probability" for one in curves):
            return None
        return CORRELATION if self.metric.value == "insdel" else SHARE

    def _cutoffs(self) -> list[int]:
        return list(range(self.start.value + 1 if self.start.value else 0, self.model.n_layers + 1))

    def _go(self, cutoff: int) -> None:
        self.cutoff.value = max(cutoff, self.cutoff.min)
        self._mark_cutoff()  # everywhere, even if the cutoff is not available

    def _limit(self) -> None:
        # A range needs a block: the cutoff moves up with the start.
        self.cutoff.min = self._cutoffs()[0]

    def _start_or_stop(self) -> None:
        """Play from here, or from the first cutoff if this is the last one; or pause."""
        playing = self.play.value
        self.play.description, self.play.icon = ("pause", "pause") if playing else ("play", "play")
        self.play.tooltip = "Stay at this cutoff" if playing else "Go through the cutoffs"
        self._plays += 1
        if playing:
            if self.cutoff.value == self.cutoff.max:
                self.cutoff.value = self.cutoff.min
            self._step_later()

    def _step_later(self) -> None:
        plays = self._plays
        self._later(SECONDS_PER_STEP, lambda: self._step() if plays == self._plays else None)

    def _step(self) -> None:
        """Go to the next cutoff once this one's map is computed, up to the last one."""
        if self.map is not None:
            self.cutoff.value += 1
        if self.cutoff.value == self.cutoff.max:
            self.play.value = False
        else:
            self._step_later()

    def _update(self) -> None:
        """Show what is known for these settings, and compute the rest, nearest cutoffs first."""
        self.board.neighbours = [list(offset) for offset in find_neighbourhood(self.neighbourhood.value)]
        self._draw()
        here, settings = self._here, self.settings
        order = sorted(self._cutoffs(), key=lambda cutoff: abs(cutoff - self.cutoff.value))
        # None means the prediction, which maps without a target include; maps of a direction do not.
        wanted = self.target_box.target if self._direction is None else self.target
        maps, curves, first = [], [], []
        if not self.target_box.likelihoods:
            first.append(Job(("classes",), self._run_classes, self._on_classes))
        for place, cutoff in enumerate(order):
            if cutoff not in here.maps:
                options = {**settings, "cutoff": cutoff}
                job = Job(("map", *options.values()), self._run_map(here, options), self._on_map(cutoff))
                maps.append((place, 0, job))
            if (cutoff, self.target) not in here.curves:
                key = ("curves", *settings.values(), cutoff, wanted)
                job = Job(key, self._run_curves(here, cutoff, wanted), self._on_curves(here, cutoff))
                curves.append((place + FIRST, 1, job))
        in_turn = sorted([*maps, *curves], key=lambda item: item[:2])
        self._replace_jobs([*first, *(job for _, _, job in in_turn)])

    def _run_classes(self) -> Tensor:
        with torch.no_grad():
            return self._copy(self.photo.x)[0, : self.model.n_classes]

    def _on_classes(self, logits: Tensor) -> None:
        """Let the class field suggest the likeliest classes first."""
        self.target_box.suggest(probabilities(logits))

    def _run_map(self, here: CutoffMaps, options: dict[str, Any]) -> Any:
        # All targets are read from one pass's scores of all classes, except a direction, which is not a class.
        target = self._direction

        def run() -> AttributionMap:
            m = caap(self._copy, self.photo.x, target, progress=False, **options)
            assert isinstance(m, AttributionMap)
            # Stored now, not when it is shown: the curves' jobs do not wait for a notebook cell to end.
            here.maps[options["cutoff"]] = m
            return m

        return run

    def _on_map(self, cutoff: int) -> Any:
        def receive(m: AttributionMap) -> None:
            if self._direction is None:
                self._predicted = m.target_class  # maps are computed without a target
            self._draw()

        return receive

    def _run_curves(self, here: CutoffMaps, cutoff: int, wanted: Any) -> Any:
        def run() -> PerturbationCurves:
            m = here.map(cutoff, wanted)
            assert m is not None, "the map comes first"
            curves = insertion_deletion(self._copy, self.photo.x, m, protocol=PROTOCOL, progress=False)
            assert isinstance(curves, PerturbationCurves)
            return curves

        return run

    def _on_curves(self, here: CutoffMaps, cutoff: int) -> Any:
        def receive(curves: PerturbationCurves) -> None:
            here.curves[(cutoff, curves.target)] = curves
            self._draw_curve()
            self._draw_strip()
            self._changed()

        return receive

    # -- display -----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        m, place = self.map, f"cutoff {self.cutoff.value} of {self.model.n_layers}"
        if m is None:
            tile = map_tile("map", "photo", place, None, self.model.grid, "")
        else:
            limits = {name: self._here.limits(self.target, robust=name == "robust") for name in ("robust", "full")}
            tile = map_tile(
                "map",
                "photo",
                f"{m.caption}, {place}",
                m.scores.double().numpy(),
                m.grid,
                m.unit,
                signed=m.sign == "signed",
                locked={name: ends for name, ends in limits.items() if ends is not None},
                tips=class_tips(m, self.model.class_names),
                details=", ".join(f"{name} {value}" for name, value in self.settings.items()),
            )
        self.board.tiles = [tile]
        self._draw_curve()
        self._draw_strip()
        self._changed()

    def _draw_chosen_metric(self) -> None:
        self._draw_curve()
        self._draw_strip()
        self._changed()

    def _draw_curve(self) -> None:
        values, name = self.values, metric_column(self.metric.value).title
        ends = value_span(np.array(list(values.values())), self._natural)
        room = 0.04 * (ends[1] - ends[0])
        with self.curve.hold_sync():
            self.curve.series = [line(name, [values.get(cutoff) for cutoff in self.curve.x], COLOURS[0])]
            self.curve.limits = [ends[0] - room, ends[1] + room]
            self.curve.y_label = name
            self.curve.label = f"{name} over cutoffs"
        self._mark_cutoff()

    def _draw_strip(self) -> None:
        """Draw thumbnails of all cutoffs, with the metric as far as it is known."""
        here, values, name = self._here, self.values, metric_column(self.metric.value).title
        maps = here.of_target(self.target)
        said = {cutoff: f"{name} {values[cutoff]:.3g}" if cutoff in values else "" for cutoff in maps}
        show_maps(
            self.strip,
            {cutoff: m.scores.double().numpy() for cutoff, m in maps.items()},
            self._cutoffs(),
            signed=any(m.sign == "signed" for m in maps.values()),
            robust=self.board.robust,
            colours=self.board.colours,
            limits=here.limits(self.target, robust=self.board.robust) if self.board.lock else None,
            tips=said,
        )

    def _mark_cutoff(self) -> None:
        self.curve.current, self.strip.chosen = self.cutoff.value, [0, self.cutoff.value]


def _contexts(model: HookedModel) -> list[str]:
    """The contexts in which a model can run, the default first."""
    if not isinstance(model, HookedViT):
        return ["free"]
    return [name for name in CONTEXTS if name != "dropped" or model.spec.live_prefix]
