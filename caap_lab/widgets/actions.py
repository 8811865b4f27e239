"""Exports what a widget shows: as a picture, as numbers, and as the Python code that computes it."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from matplotlib.figure import Figure

from caap_lab.widgets.scripts import styles

if TYPE_CHECKING:
    import pandas as pd

_HERE = Path(__file__).parent
DPI = 200
"""Resolution of a PNG: sharp in print at the figure's own size."""
TYPES = {"png": "image/png", "pdf": "application/pdf", "csv": "text/csv"}


class Actions(anywidget.AnyWidget):
    """Buttons that save a figure or a table and copy code; the browser saves, so it also works from a remote machine.

    Attributes:
        code: The Python code that computes what is shown.
        kinds: The kinds of files offered, from "png", "pdf" and "csv".
    """

    _esm = _HERE / "actions.js"
    _css = styles("widgets.css", "controls.css")
    code = traitlets.Unicode().tag(sync=True)
    kinds = traitlets.List(traitlets.Unicode(), default_value=list(TYPES)).tag(sync=True)

    def __init__(self, make: Callable[[str], tuple[str, bytes]], on_error: Callable[[Exception], None]) -> None:
        """Create the buttons.

        Args:
            make: Returns the name and the bytes of a file of a given kind when its button is pressed.
            on_error: Called with the exception if that fails.
        """
        super().__init__()
        self._make, self._on_error = make, on_error
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        kind = content["make"]
        try:
            name, data = self._make(kind)
        except Exception as error:  # whatever it is, the button has to be released
            self._on_error(error)
            self.send({"failed": kind})
        else:
            self.send({"made": kind, "name": name, "type": TYPES[kind]}, [data])


def figure_file(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a PNG or PDF file."""
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI)
    return buffer.getvalue()


def table_file(frame: "pd.DataFrame") -> bytes:
    """A table as the bytes of a CSV file, encoded so that spreadsheets read all characters."""
    return frame.to_csv(index=False).encode("utf-8-sig")


def file_name(words: str, kind: str) -> str:
    """A file name that is valid on every file system, without an image's extension in the middle."""
    words = re.sub(r"\.(?:jpe?g|png|webp|gif|bmp|tiff?)(?![A-Za-z0-9])", "", words, flags=re.IGNORECASE)
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', words).strip('_.') or 'figure'}.{kind}"
