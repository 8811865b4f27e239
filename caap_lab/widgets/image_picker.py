"""Choosing an image: small pictures, and a place to drop photos of one's own."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets

from caap_lab.widgets.scripts import joined, styles

MEGABYTE = 1 << 20
LARGEST = 25
"""Megabytes of a dropped file."""
UPLOADS = 4
"""Uploads that are remembered: those of as many views at once, and finished ones whose last piece may come again."""


@dataclass
class _Upload:
    """A file on its way: the first pieces of it, none twice."""

    content: bytes = b""
    pieces: int = 0


class ImagePicker(anywidget.AnyWidget):
    """Small pictures, one of which is chosen, and a place to drop files on, to paste into, or to choose a file with.

    A file comes in pieces of one megabyte: a single message of more than 10 megabytes ends the notebook's connection.
    The browser sends a piece when the kernel has told that it holds the one before, and sends it again if it hears
    nothing for a while. Neither delivery nor order can be relied on: a connection that breaks off loses what is on its
    way, and a kernel with subshells (ipykernel 7) handles messages of one widget in two threads, those sent later
    perhaps first.

    Attributes:
        pictures: PNG files.
        names: What they are called.
        chosen: Place of the chosen one.
        largest: Megabytes that are taken; larger files are refused before they are sent.
        received: The upload whose piece came last, by the browser's name for it, and how many pieces are here.
        file: Name and content of the last file.
        problem: Why files were not taken, said where they were dropped; empty if nothing is wrong. Add to it where a
            file turns out to be no image; it is emptied when files are dropped again.
    """

    _esm = joined("elements.js", "upload.js", "image_picker.js")
    _css = styles("widgets.css", "controls.css")
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    largest = traitlets.Int(LARGEST).tag(sync=True)
    received = traitlets.Tuple(traitlets.Unicode(), traitlets.Int(), default_value=("", 0)).tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    file = traitlets.Tuple(traitlets.Unicode(), traitlets.Bytes(), default_value=("", b""))

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._drop = ""  # what was dropped last, by the browser's name for it
        self._receiving = threading.Lock()
        self.on_msg(self._receive)

    def refuse(self, reason: str) -> None:
        """Say why a file was not taken, beside what is said of the others that were dropped with it."""
        self.problem = f"{self.problem} {reason}".lstrip()

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        with self._receiving:  # a piece and its repetition may come in two threads
            self._take(content, buffers[0])

    def _take(self, content: dict[str, Any], piece: memoryview) -> None:
        upload = self._uploads.setdefault(content["upload"], _Upload())
        self._uploads.move_to_end(content["upload"])
        while len(self._uploads) > UPLOADS:
            self._uploads.popitem(last=False)
        is_next = content["piece"] == upload.pieces  # else it was sent again, or the pieces before it are forgotten
        if is_next:
            if upload.pieces == 0 and content["drop"] != self._drop:
                self._drop, self.problem = content["drop"], ""
            upload.content += piece
            upload.pieces += 1
            if len(upload.content) > self.largest * MEGABYTE:  # whatever the page says of the size
                upload.content, upload.pieces = b"", content["pieces"]  # the browser need not send the rest
                self.refuse(f"{content['name']} is larger than {self.largest} MB.")
                is_next = False
        held = (content["upload"], upload.pieces)
        if self.received == held:
            self.send_state("received")  # the browser has not heard of it
        self.received = held
        if is_next and upload.pieces == content["pieces"]:
            file, upload.content = upload.content, b""
            self.set_trait("file", ("", b""))  # the same file may come twice
            self.set_trait("file", (content["name"], file))
