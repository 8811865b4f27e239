"""Choosing an image: small pictures, and a place to drop photos of one's own."""

from typing import Any

import anywidget
import traitlets

from caap_lab.widgets.scripts import joined, styles

MEGABYTE = 1 << 20
LARGEST = 25
"""Megabytes of a dropped file."""


class ImagePicker(anywidget.AnyWidget):
    """Small pictures, one of which is chosen, and a place to drop files on, to paste into, or to choose a file with.

    A file comes in pieces of one megabyte: a single message of more than 10 megabytes ends the notebook's connection.

    Attributes:
        pictures: PNG files.
        names: What they are called.
        chosen: Place of the chosen one.
        largest: Megabytes that are taken; larger files are refused before they are sent.
        received: Pieces of the present file that have arrived.
        file: Name and content of the last file.
        problem: Why a file was not taken, said where it was dropped; empty if nothing is wrong. Set it where a file
            turns out to be no image.
    """

    _esm = joined("elements.js", "image_picker.js")
    _css = styles("widgets.css", "controls.css")
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    largest = traitlets.Int(LARGEST).tag(sync=True)
    received = traitlets.Int(0).tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    file = traitlets.Tuple(traitlets.Unicode(), traitlets.Bytes(), default_value=("", b""))

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._pieces: list[bytes] = []
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        if content["piece"] == 0:
            self._pieces = []
        self._pieces.append(bytes(buffers[0]))
        self.received = len(self._pieces)
        if sum(map(len, self._pieces)) > self.largest * MEGABYTE:  # whatever the page says of the size
            self._pieces, self.problem = [], f"{content['name']} is larger than {self.largest} MB."
        elif content["piece"] == content["pieces"] - 1:
            pieces, self._pieces = self._pieces, []
            self.set_trait("file", ("", b""))  # the same file may come twice
            self.set_trait("file", (content["name"], b"".join(pieces)))
