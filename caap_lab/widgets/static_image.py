"""A picture drawn in the kernel."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class StaticImage(anywidget.AnyWidget):
    """A picture with an alternative text.

    Attributes:
        png: The picture; empty for none.
        label: A description of the picture, for screen readers.
        width: Width of the picture in pixels, if there is space.
    """

    _esm = _HERE / "static_image.js"
    _css = _HERE / "widgets.css"
    png = traitlets.Bytes().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(900).tag(sync=True)
