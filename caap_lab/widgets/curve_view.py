"""A small line chart drawn in the browser, so that it follows a slider without delay."""

from pathlib import Path

import anywidget
import traitlets
from matplotlib import rcParamsDefault

from caap_lab.plots.style import LevelStyle

_HERE = Path(__file__).parent
_DASHES = {
    "-": (),
    "--": rcParamsDefault["lines.dashed_pattern"],
    "-.": rcParamsDefault["lines.dashdot_pattern"],
    ":": rcParamsDefault["lines.dotted_pattern"],
}
"""Matplotlib's dashes, as lengths on and off in multiples of the line width."""


class Curve(anywidget.AnyWidget):
    """Lines over whole numbers, one of which is the current one; the mouse and the arrow keys choose another.

    It is as wide as the space allows, and shows the values under the mouse.

    Attributes:
        x: The numbers.
        series: Name, colour, dash (SVG stroke-dasharray, "" for none), and one value per number, None if it is not
            known yet.
        current: The number that is marked.
        x_label: Label of the horizontal axis.
        y_label: Label of the vertical axis, with its unit.
        limits: Lowest and highest number of the vertical axis, which is extended to values outside; empty for an axis
            that the values fill.
        title: The line above it.
        label: A description of the chart, for screen readers.
        height: Minimum height in pixels; a wide chart is up to half as much higher.
    """

    _esm = _HERE / "curve_view.js"
    _css = _HERE / "widgets.css"
    x = traitlets.List(traitlets.Int()).tag(sync=True)
    series = traitlets.List(traitlets.Dict()).tag(sync=True)
    current = traitlets.Int(0).tag(sync=True)
    x_label = traitlets.Unicode().tag(sync=True)
    y_label = traitlets.Unicode().tag(sync=True)
    limits = traitlets.List(traitlets.Float()).tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(240).tag(sync=True)


def svg_dash(style: LevelStyle) -> str:
    """A level's dash, as matplotlib draws it, as SVG's `stroke-dasharray` for lines of 2 pixels."""
    lengths = style.dash[1] if isinstance(style.dash, tuple) else _DASHES[style.dash]
    return " ".join(f"{2.4 * length:.3g}" for length in lengths)


def line(name: str, values: list[float | None], colour: str, dash: str = "") -> dict[str, object]:
    """An item of `Curve.series`."""
    return {"name": name, "values": values, "colour": colour, "dash": dash}
