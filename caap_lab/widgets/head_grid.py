"""The maps of all heads of all layers at a glance, drawn in the browser on one canvas."""

from pathlib import Path
from typing import Any, Literal

import anywidget
import numpy as np
import traitlets
from ipywidgets import Widget, widget_serialization
from jaxtyping import Float

from caap_lab.widgets.scripts import joined

_HERE = Path(__file__).parent
Scale = Literal["each head", "each layer", "all heads"]
LAST = 2**16 - 1
"""The largest value of a map in `tiles`, which means the value in `highs`."""
SCALES: tuple[Scale, ...] = ("each head", "each layer", "all heads")


class HeadGrid(anywidget.AnyWidget):
    """One small map per head, one row per layer; the mouse or the arrow keys choose a map.

    At first all maps are visible, whatever their number. Buttons, "+" and "-", and the wheel with Ctrl enlarge them;
    the map that is pointed at is shown large on the board next to the grid.

    Attributes:
        layers: Number of layers.
        heads: Number of heads of a layer.
        rows: Rows of patches in a map.
        cols: Columns of patches in a map.
        tiles: [layer, head, row, col] as bytes; empty for none. Without `highs` uint8, the index of each patch's colour
            in `table`; otherwise uint16, the patch's value on the scale from the map's value in `lows` to that in
            `highs`.
        lows: float32 [layer, head] as bytes; empty for zeros.
        highs: float32 [layer, head] as bytes, NaN for a map that is not known yet.
        robust_highs: The same for the last colour if the board next to the grid uses a robust range; empty for `highs`.
        scale: Which maps share their colours, with `highs`: the last colour is the highest value of "each head", of
            "each layer" or of "all heads".
        unit: The unit of the values, after the colour bar; without it there is no bar.
        table: uint8 [256, 3] as bytes, the colours; those of the board if there is one.
        order: Numbers of the maps (layer * heads + head) in display order, -1 for an empty place; empty for layers down
            and heads across.
        across: Maps side by side; 0 for as many as there are heads.
        names: Names of the rows; empty for their numbers.
        columns: Names of the columns; empty for their numbers.
        split: The row and the column before which there is more space, 0 for none.
        marks: A short text in each map's corner; empty for none.
        chosen: Layer and head of the chosen map; -1, -1 for none.
        query: Row and column of the patch outlined in every map, or empty.
        unasked: Layers in whose maps the query is not outlined because they have a different query.
        tips: Text about each head when it is pointed at, layer by layer; its name ends at a colon.
        label: A description of the content, for screen readers.
        caption: The line above it.
        width: Maximum width of the grid in pixels; 0 for as wide as the space allows.
        height: Maximum height of the maps in pixels.
        zooms: Allow zooming.
        board: The board whose tile shows the map that is pointed at, and whose colours are used.
        tile: Key of that tile.
    """

    _esm = joined("bytes.js", "elements.js", "head_sheet.js", "head_layout.js", "head_frame.js", "head_grid.js")
    _css = _HERE / "widgets.css"
    layers = traitlets.Int(1).tag(sync=True)
    heads = traitlets.Int(1).tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    cols = traitlets.Int(1).tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    lows = traitlets.Bytes().tag(sync=True)
    highs = traitlets.Bytes().tag(sync=True)
    robust_highs = traitlets.Bytes().tag(sync=True)
    scale = traitlets.Enum(SCALES, "each head").tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    table = traitlets.Bytes().tag(sync=True)
    order = traitlets.List(traitlets.Int()).tag(sync=True)
    across = traitlets.Int(0).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    split = traitlets.List(traitlets.Int(), default_value=[0, 0]).tag(sync=True)
    marks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.List(traitlets.Int(), default_value=[0, 0]).tag(sync=True)
    query = traitlets.List(traitlets.Int()).tag(sync=True)
    unasked = traitlets.List(traitlets.Int()).tag(sync=True)
    tips = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)
    height = traitlets.Int(600).tag(sync=True)
    zooms = traitlets.Bool(True).tag(sync=True)
    board = traitlets.Instance(Widget, allow_none=True).tag(sync=True, **widget_serialization)
    tile = traitlets.Unicode().tag(sync=True)


def tile_bytes(
    maps: Float[np.ndarray, "layer head row col"],
    lows: Float[np.ndarray, "layer head"] | None = None,
    highs: Float[np.ndarray, "layer head"] | None = None,
) -> dict[str, bytes]:
    """Values for `HeadGrid.tiles`, `lows` and `highs`, each map on its own scale.

    Args:
        maps: The values; NaN for a map that is not known yet.
        lows: Value that 0 means in each map; 0 by default.
        highs: Value that `LAST` means in each map; the map's highest by default.
    """
    last = maps.max(axis=(2, 3)) if highs is None else highs
    first = np.zeros_like(last) if lows is None else lows
    span = np.where(last > first, last - first, 1)[..., None, None]
    shares = np.nan_to_num((maps - first[..., None, None]) / span)
    return {
        "tiles": np.rint(LAST * shares).clip(0, LAST).astype("<u2").tobytes(),
        "lows": b"" if lows is None else lows.astype("<f4").tobytes(),
        "highs": last.astype("<f4").tobytes(),
    }


def set_all(widget: Widget, traits: dict[str, Any]) -> None:
    """Set traits of a widget in one message."""
    with widget.hold_sync():
        for name, value in traits.items():
            setattr(widget, name, value)
