"""The cutoff in one's hand: CAAP's map and its insertion and deletion follow a slider."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import ipywidgets
import pandas as pd
import torch
from matplotlib.figure import Figure

from caap_lab.attribution.caap import caap
from caap_lab.attribution.map import AttributionMap
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.settings import CONTEXTS, DEFAULTS, cutoff_blocks
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import metric_column
from caap_lab.metrics.perturbation import FAITHFULNESS, PerturbationCurves, insertion_deletion
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS, find_neighbourhood
from caap_lab.models.targets import Direction, TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.plots.lines import mark_number, plot_lines
from caap_lab.plots.maps import plot_image
from caap_lab.plots.style import COLOURS, new_figure
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.curve_view import Curve, line
from caap_lab.widgets.panel import Panel, group, wrapped
from caap_lab.widgets.patch_tips import patch_tips
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.picture import Picture
from caap_lab.widgets.pixels import map_colours, map_range, png
from caap_lab.widgets.target_box import TargetBox, target_call

PROTOCOL = "rise-28"
"""Curves of 28 steps, as the sweeps draw them."""
SECONDS_PER_STEP = 0.6
_OTHER_SETTINGS = ("start", "neighbourhood", "blank", "context")
"""All that a map depends on, besides the cutoff."""
KEPT = 16
"""Settings whose maps stay in memory."""


def layer_sweep(model: HookedModel, image: Images, target: TargetLike | None = None) -> "LayerSweep":
    """Follow CAAP's map over cutoffs and first blocks, for any blank, neighbourhood and context.

    Maps are computed in the background, those of the nearest cutoffs first, then their insertion and deletion curves;
    a map that is known shows at once, and work for settings that were left is dropped.

    Args:
        model: A Vision Transformer or CNN.
        image: One image.
        target: The class: index, WordNet id or word; None for the model's own prediction. Or another target, such as
            `cl.contrast("tabby", "tiger cat")`, which the class field keeps as its first suggestion.

    Returns:
        The widget. `map` is the map shown, `to_figure()` gives it with the curve over cutoffs, `link` the Python call.

    Raises:
        InputError: something given does not fit.
    """
    return LayerSweep(model, image, target)


@dataclass(eq=False)
class _Known:
    """What is computed for one start, blank, neighbourhood and context."""

    maps: dict[int, AttributionMap] = field(default_factory=dict)
    curves: dict[tuple[int, Any], PerturbationCurves] = field(default_factory=dict)
    """By cutoff and target."""


class LayerSweep(Panel):
    """The widget of `layer_sweep`."""

    def __init__(self, model: HookedModel, image: Images, target: TargetLike | None) -> None:
        check_kind(model, "layer_sweep", ("vit", "cnn"))
        photos = photos_of(model, image)
        if len(photos) != 1:
            raise InputError(f"layer_sweep shows one image; {len(photos)} were given. cl.sweep_cutoffs takes many.")
        self.target_box = TargetBox(model, target)  # the last that may be refused: nothing is left open then
        super().__init__()
        self.model, self.photo = model, photos[0]
        self._copy = cancellable_copy(model)
        self._known: OrderedDict[tuple[Any, ...], _Known] = OrderedDict()
        given = self.target_box.target
        self._direction = given if isinstance(given, Direction) else None
        self._predicted: int | None = None
        if self._direction is not None:  # maps that are computed for it do not know the prediction
            with torch.no_grad():
                self._predicted = int(model(self.photo.x)[0, : model.n_classes].argmax())

        layers = model.n_layers
        contexts = _contexts(model)
        self.cutoff = ipywidgets.IntSlider(cutoff_blocks(None, layers), min=0, max=layers, description="cutoff")
        self.start = ipywidgets.IntSlider(DEFAULTS["start"], min=0, max=layers - 1, description="start")
        self.play = ipywidgets.ToggleButton(description="play", tooltip="Go through the cutoffs", icon="play")
        self.blank = ipywidgets.Dropdown(options=BLANKS, value=DEFAULTS["blank"], description="blank")
        self.neighbourhood = ipywidgets.Dropdown(
            options=list(NEIGHBOURHOODS), value=DEFAULTS["neighbourhood"], description="neighbours"
        )
        self.context = ipywidgets.Dropdown(options=contexts, description="context")
        metrics = [(column.title, column.name) for column in FAITHFULNESS.columns]
        self.metric = ipywidgets.Dropdown(options=metrics, value="insdel", description="metric")
        self.opacity = ipywidgets.FloatSlider(0.6, min=0, max=1, step=0.05, description="opacity")
        rows, cols = model.grid
        self.picture = Picture(photo=self.photo.grey_png, rows=rows, cols=cols, width=280)
        self.curve = Curve(x=list(range(layers + 1)), x_label="cutoff (blocks patched)", width=300)
        self._lay_out(
            [
                group("blocks", self.cutoff, self.play, self.start),
                group("class", self.target_box),
                group("settings", self.blank, self.neighbourhood, self.context),
                group("look", self.metric, self.opacity),
            ],
            wrapped(self.picture, self.curve),
        )
        self._on(self.play, "value", self._step)
        self._on(self.curve, "current", self._go)
        self._on(self.start, "value", self._limit)
        for control in (self.cutoff, self.start, self.blank, self.neighbourhood, self.context):
            self._on(control, "value", self._update)
        self.target_box.on_choice(self._update, self._on)
        self._on(self.metric, "value", self._draw_chosen_metric)
        self._on(self.opacity, "value", self._set_opacity)
        with self._shown_errors():
            self._update()

    @property
    def settings(self) -> dict[str, Any]:
        """CAAP's options at the present place of the controls."""
        return {
            "cutoff": self.cutoff.value,
            "start": self.start.value,
            "neighbourhood": self.neighbourhood.value,
            "blank": self.blank.value,
            "context": self.context.value,
        }

    @property
    def target(self) -> Any:
        """What is explained: a class's index, or a contrast or the like; None while no prediction is known yet."""
        target = self.target_box.resolved(self._predicted)
        return None if target is None else target.given

    @property
    def map(self) -> AttributionMap | None:
        """The map of the present settings, once it is computed."""
        m, target = self._here.maps.get(self.cutoff.value), self.target
        return m if m is None or target is None else _of(m, target)

    @property
    def values(self) -> dict[int, float]:
        """The chosen metric by cutoff, as far as it is computed; see `insertion_deletion` with protocol "rise-28"."""
        return {
            cutoff: float(getattr(curves, self.metric.value))
            for (cutoff, target), curves in sorted(self._here.curves.items(), key=lambda kept: kept[0][0])
            if target == self.target
        }

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        lines = [f"m = cl.caap(model, {self.photo.call}, target={target_call(self.target)}, {options})"]
        if isinstance(self.model, HookedViT) and self.context.value != "frozen":
            rest = ", ".join(f"{name}={self.settings[name]!r}" for name in _OTHER_SETTINGS)
            picture = f"[{self.photo.call}]"
            lines.append(
                f"cl.sweep_cutoffs(model, {picture}, {target_call(self.target)}, cutoffs={self._cutoffs()}, {rest})"
            )
        return "\n".join(lines)

    @property
    def file_name(self) -> str:
        """What saved files are called: the model and the image."""
        return f"{self.model.model_name} {self.photo.name} cutoff {self.cutoff.value}"

    def to_figure(self) -> Figure:
        """The map with its scale beside the metric over cutoffs."""
        height, width = self.photo.pixels.shape[:2]
        figure = new_figure(8.2, max(3.2, 3.6 * height / width))
        left, right = figure.subplots(1, 2)
        m, values = self.map, self.values
        if m is None:
            plot_image(self.photo.pixels, left)
        else:
            title = f"{self.model.model_name}, {m.caption}, cutoff {self.cutoff.value}"
            m.overlay(left, opacity=self.opacity.value, label=m.score, title=title)
        start, neighbourhood, blank, context = (f"{name} {self.settings[name]}" for name in _OTHER_SETTINGS)
        plot_lines(
            pd.DataFrame({"cutoff": values.keys(), "value": values.values()}, dtype=float),
            *("cutoff", "value"),
            error=None,
            ax=right,
            markers=True,
            whole_numbers=True,
            xlabel=self.curve.x_label,
            ylabel=self.curve.y_label,
            title=f"{start}, {neighbourhood}\n{blank}, {context}; {PROTOCOL} curves",
        )
        mark_number(right, self.cutoff.value)
        right.set_xlim(-0.4, self.model.n_layers + 0.4)
        return figure

    def to_dataframe(self) -> pd.DataFrame:
        """One row per cutoff whose insertion and deletion are computed, with the settings that it rests on."""
        columns = [column.name for column in FAITHFULNESS.columns]
        rows = [
            {**self.settings, "cutoff": cutoff, **{name: float(getattr(curves, name)) for name in columns}}
            for (cutoff, target), curves in sorted(self._here.curves.items(), key=lambda kept: kept[0][0])
            if target == self.target
        ]
        return pd.DataFrame(rows, columns=[*self.settings, *columns])

    # -- what happens ------------------------------------------------------------------------------------------------

    @property
    def _here(self) -> _Known:
        key = tuple(self.settings[name] for name in _OTHER_SETTINGS)
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return known

    def _cutoffs(self) -> list[int]:
        return list(range(self.start.value + 1 if self.start.value else 0, self.model.n_layers + 1))

    def _go(self) -> None:
        self.cutoff.value = max(self.curve.current, self.cutoff.min)

    def _limit(self) -> None:
        # A range needs a block: the cutoff moves up with the start.
        self.cutoff.min = self._cutoffs()[0]

    def _step(self) -> None:
        """Go to the next cutoff once this one's map is there, and on as long as the button is pressed."""
        if not self.play.value:
            return
        if self.map is not None:
            self.cutoff.value = self.cutoff.value + 1 if self.cutoff.value < self.cutoff.max else self.cutoff.min
        self._later(SECONDS_PER_STEP, self._step)

    def _update(self) -> None:
        """Show what is known here, and compute the rest, nearest cutoffs first."""
        self.picture.neighbours = [list(offset) for offset in find_neighbourhood(self.neighbourhood.value)]
        self._draw()
        here, settings = self._here, self.settings
        order = sorted(self._cutoffs(), key=lambda cutoff: abs(cutoff - self.cutoff.value))
        jobs = []
        for cutoff in order:
            if cutoff not in here.maps:
                options = {**settings, "cutoff": cutoff}
                jobs.append(Job(("map", *options.values()), self._run_map(here, options), self._on_map(cutoff)))
        # None leaves the prediction to maps that are computed without a target, which a direction's are not.
        wanted = self.target_box.target if self._direction is None else self.target
        for cutoff in order:
            if (cutoff, self.target) not in here.curves:
                key = ("curves", *settings.values(), cutoff, wanted)
                jobs.append(Job(key, self._run_curves(here, cutoff, wanted), self._on_curves(here, cutoff)))
        self._replace_jobs(jobs)

    def _run_map(self, here: _Known, options: dict[str, Any]) -> Any:
        # All targets are read from the scores of all classes of one pass, but for a direction, which is no class.
        target = self._direction

        def run() -> AttributionMap:
            m = caap(self._copy, self.photo.x, target, progress=False, **options)
            assert isinstance(m, AttributionMap)
            # Kept from here on, and not when it is shown: the curves' jobs wait for no cell of the notebook to end.
            here.maps[options["cutoff"]] = m
            return m

        return run

    def _on_map(self, cutoff: int) -> Any:
        def receive(m: AttributionMap) -> None:
            if self._direction is None:
                self._predicted = m.target_class  # maps are computed without a target
            if cutoff == self.cutoff.value:
                self._draw()

        return receive

    def _run_curves(self, here: _Known, cutoff: int, wanted: Any) -> Any:
        def run() -> PerturbationCurves:
            m = here.maps[cutoff]  # the maps come first
            one = m if wanted is None else _of(m, wanted)
            curves = insertion_deletion(self._copy, self.photo.x, one, protocol=PROTOCOL, progress=False)
            assert isinstance(curves, PerturbationCurves)
            return curves

        return run

    def _on_curves(self, here: _Known, cutoff: int) -> Any:
        def receive(curves: PerturbationCurves) -> None:
            here.curves[(cutoff, curves.target)] = curves
            self._draw_curve()
            self._changed()

        return receive

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        m = self.map
        if m is None:
            self.picture.overlay, self.picture.tips = b"", []
            self.picture.caption = self.picture.label = f"cutoff {self.cutoff.value}: computing"
        else:
            low, high = map_range(m)
            self.picture.overlay = png(map_colours(m))
            self.picture.caption = (
                f"{m.caption}, cutoff {self.cutoff.value} of {self.model.n_layers}, logit {low:.3g} to {high:.3g}"
            )
            self.picture.label = f"Map of CAAP for {m.target_name} at cutoff {self.cutoff.value}"
            self.picture.tips = patch_tips(m, None, self.model.class_names)
        self._draw_curve()
        self._changed()

    def _set_opacity(self) -> None:
        """The browser applies it: no picture is sent again. Only the one in the saved notebook is drawn again."""
        self.picture.opacity = self.opacity.value
        self._changed()

    def _draw_chosen_metric(self) -> None:
        self._draw_curve()
        self._changed()

    def _draw_curve(self) -> None:
        values, name = self.values, metric_column(self.metric.value).title
        self.curve.series = [line(name, [values.get(cutoff) for cutoff in self.curve.x], COLOURS[0])]
        self.curve.y_label = name
        self.curve.label = f"{name} over cutoffs"
        self.curve.current = self.cutoff.value


def _of(m: AttributionMap, target: Any) -> AttributionMap:
    """A map for another target, from the same pass."""
    return m if m.target == target else m.for_target(target)


def _contexts(model: HookedModel) -> list[str]:
    """The contexts that a model can run in, the default first."""
    if not isinstance(model, HookedViT):
        return ["free"]
    return [name for name in CONTEXTS if name != "dropped" or model.spec.live_prefix]
