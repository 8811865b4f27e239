"""Small pictures to choose from, and a place to drop a photo of one's own."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent
MEGABYTE = 1 << 20
LARGEST = 25
"""Megabytes of an uploaded file."""


class Gallery(anywidget.AnyWidget):
    """A row of small pictures, one of which is chosen.

    Attributes:
        pictures: PNG files.
        names: What they are called.
        chosen: Place of the chosen one.
    """

    _esm = _HERE / "gallery.js"
    _css = _HERE / "widgets.css"
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)


class Upload(anywidget.AnyWidget):
    """A button, and a place to drop a file on.

    The file comes in pieces of one megabyte: a single message of more than 10 megabytes ends the notebook's connection.

    Attributes:
        largest: Megabytes that are taken; larger files are refused before they are sent.
        file: Name and content of the last file.
        problem: Why the last file was not taken, in a sentence; changes even if it is the same one again.
    """

    _esm = _HERE / "upload.js"
    _css = _HERE / "widgets.css"
    largest = traitlets.Int(LARGEST).tag(sync=True)
    file = traitlets.Tuple(traitlets.Unicode(), traitlets.Bytes(), default_value=("", b""))
    problem = traitlets.Tuple(traitlets.Int(), traitlets.Unicode(), default_value=(0, ""))

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._pieces: list[bytes] = []
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        if content["kind"] == "problem":
            self.problem = (self.problem[0] + 1, content["text"])
            return
        if content["piece"] == 0:
            self._pieces = []
        self._pieces.append(bytes(buffers[0]))
        if sum(map(len, self._pieces)) > self.largest * MEGABYTE:  # whatever the page says of the size
            self._pieces = []
        elif content["piece"] == content["pieces"] - 1:
            pieces, self._pieces = self._pieces, []
            self.set_trait("file", ("", b""))  # the same file may come twice
            self.set_trait("file", (content["name"], b"".join(pieces)))
