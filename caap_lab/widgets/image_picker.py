"""Choosing an image: thumbnails, and a place to drop photos."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets

from caap_lab.widgets.scripts import joined, styles

MEGABYTE = 1 << 20
LARGEST = 25
"""Size limit of a dropped file in megabytes."""
UPLOADS = 4
"""Number of uploads to remember: those of several views at once, and finished ones whose last piece may come again."""


@dataclass
class _Upload:
    """A file that is being uploaded: its first pieces, without repetitions."""

    content: bytes = b""
    pieces: int = 0


class ImagePicker(anywidget.AnyWidget):
    """Thumbnails, one of which is chosen, and a place to drop or paste files, or to choose one.

    A file is sent in pieces of one megabyte: a single message of more than 10 megabytes would close the notebook's
    connection. The browser sends a piece when the kernel has confirmed the one before, and sends it again if there is
    no answer for a while. Neither delivery nor order is guaranteed: a broken connection loses what is being sent, and a
    kernel with subshells (ipykernel 7) handles the messages of one widget in two threads, perhaps the later ones first.

    Attributes:
        pictures: PNG files.
        names: Names of the images.
        chosen: Index of the chosen one.
        largest: Size limit in megabytes; larger files are rejected before they are sent.
        received: The upload whose piece came last, by the browser's name for it, and the number of pieces received.
        file: Name and content of the last file.
        problem: Why files were not accepted, shown below the place to drop them; empty if nothing is wrong. Append to
            it if a file is not an image; it is cleared when files are dropped again.
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
        """Add the reason why a file was not accepted to those of other files that were dropped with it."""
        self.problem = f"{self.problem} {reason}".lstrip()

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        with self._receiving:  # a piece and its repetition may come in two threads
            self._take(content, buffers[0])

    def _take(self, content: dict[str, Any], piece: memoryview) -> None:
        upload = self._uploads.setdefault(content["upload"], _Upload())
        self._uploads.move_to_end(content["upload"])
        while len(self._uploads) > UPLOADS:
            self._uploads.popitem(last=False)
        is_next = content["piece"] == upload.pieces  # otherwise it was sent again, or earlier pieces are lost
        if is_next:
            if upload.pieces == 0 and content["drop"] != self._drop:
                self._drop, self.problem = content["drop"], ""
            upload.content += piece
            upload.pieces += 1
            if len(upload.content) > self.largest * MEGABYTE:  # whatever size the page reports
                upload.content, upload.pieces = b"", content["pieces"]  # the browser need not send the rest
                self.refuse(f"{content['name']} is larger than {self.largest} MB.")
                is_next = False
        held = (content["upload"], upload.pieces)
        if self.received == held:
            self.send_state("received")  # the browser did not get the confirmation
        self.received = held
        if is_next and upload.pieces == content["pieces"]:
            file, upload.content = upload.content, b""
            self.set_trait("file", ("", b""))  # the same file may come twice
            self.set_trait("file", (content["name"], file))
