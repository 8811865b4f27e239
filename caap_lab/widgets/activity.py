"""What a widget is doing: a thin bar while it computes, with a button that stops it, and nothing when it is ready."""

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from caap_lab.widgets.scripts import joined, styles


class Activity(anywidget.AnyWidget):
    """How much is left to compute. Its height stays the same, so nothing below it moves.

    Attributes:
        pending: Number of things that are still computed.
        total: Number of things when all this began.
        stopped: True if the rest waits until somebody wants it.
        text: What is said where nothing is computed.
        still: What the picture beside the widget is called; empty where there is none.
    """

    _esm = joined("still.js", "activity.js")
    _css = styles("widgets.css", "controls.css")
    pending = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    stopped = traitlets.Bool(False).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    still = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_stop: Callable[[], None], on_resume: Callable[[], None]) -> None:
        """Show nothing yet.

        Args:
            on_stop: Called when the work is to stop.
            on_resume: Called when it is to go on.
        """
        super().__init__()
        self._calls = {"stop": on_stop, "resume": on_resume}
        self.on_msg(self._receive)

    def count(self, pending: int) -> None:
        """Say how much is left."""
        with self.hold_sync():
            self.total = max(self.total, pending) if pending else 0
            self.pending = pending

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        self._calls[content["wanted"]]()
