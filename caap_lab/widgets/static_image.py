"""A picture that is drawn in the kernel."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class StaticImage(anywidget.AnyWidget):
    """A picture with a text for those who cannot see it.

    Attributes:
        png: The picture; empty for none.
        label: What it shows, for screen readers.
        width: Of the picture in pixels, where there is room.
    """

    _esm = _HERE / "static_image.js"
    _css = _HERE / "widgets.css"
    png = traitlets.Bytes().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(900).tag(sync=True)
