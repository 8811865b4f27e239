"""All heads of all layers at a glance, drawn in the browser on one canvas."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class HeadGrid(anywidget.AnyWidget):
    """One small map per head, one row of them per layer; one map is chosen with the mouse or the arrow keys.

    Attributes:
        layers: Number of layers.
        names: What the layers are called; empty for their numbers.
        heads: Number of heads of a layer.
        columns: What the heads are called; empty for their numbers.
        rows: Rows of patches in a map.
        cols: Columns of patches in a map.
        tiles: uint8 [layer, head, row, col] as bytes, the place of each patch's colour in `table`; empty for none.
        table: uint8 [256, 3] as bytes, the colours.
        chosen: Layer and head of the chosen one; -1, -1 for none.
        query: Row and column of the patch outlined in every map, or nothing.
        tips: What is said about each head when it is pointed at, layer by layer.
        label: What it shows, for screen readers.
        caption: The line above it.
        width: Of the whole in pixels, at most: maps grow no larger than 56 pixels, and all layers are to be seen.
    """

    _esm = _HERE / "head_grid.js"
    _css = _HERE / "widgets.css"
    layers = traitlets.Int(1).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    heads = traitlets.Int(1).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    cols = traitlets.Int(1).tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    table = traitlets.Bytes().tag(sync=True)
    chosen = traitlets.List(traitlets.Int(), default_value=[0, 0]).tag(sync=True)
    query = traitlets.List(traitlets.Int()).tag(sync=True)
    tips = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(420).tag(sync=True)
