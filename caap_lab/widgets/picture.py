"""A picture that answers the mouse and the keyboard: patches are chosen, boxes dragged, masks painted."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class Picture(anywidget.AnyWidget):
    """A photo, colours laid over it, and a grid of patches to point at.

    Attributes:
        photo: PNG of the photo.
        overlay: PNG of one pixel per patch; empty for none.
        opacity: Of the overlay, 0 to 1.
        rows: Rows of patches.
        cols: Columns of patches.
        mode: What dragging does: "choose" a patch, draw a "box", "paint" or "erase" a mask.
        chosen: Row and column of the chosen patch, or nothing.
        box: Top, left, bottom and right patch of the box (the last two are inside it), or nothing.
        painted: Numbers of the painted patches, in reading order.
        brush: Colour of the painted patches, as #rrggbb.
        neighbours: Offsets (rows, columns) of the patches outlined around the one pointed at.
        tips: What is said about each patch when it is pointed at.
        label: What it shows, for screen readers.
        caption: The line above it.
        width: Of the picture in pixels.
    """

    _esm = _HERE / "picture.js"
    _css = _HERE / "widgets.css"
    photo = traitlets.Bytes().tag(sync=True)
    overlay = traitlets.Bytes().tag(sync=True)
    opacity = traitlets.Float(0.6).tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    cols = traitlets.Int(1).tag(sync=True)
    mode = traitlets.Enum(("choose", "box", "paint", "erase"), "choose").tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    box = traitlets.List(traitlets.Int()).tag(sync=True)
    painted = traitlets.List(traitlets.Int()).tag(sync=True)
    brush = traitlets.Unicode("#d55e00").tag(sync=True)
    neighbours = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    tips = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(280).tag(sync=True)
