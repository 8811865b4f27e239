"""The state of a widget: a thin bar and a button to stop while it computes, and nothing when it is ready."""

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from caap_lab.widgets.scripts import joined, styles


class Activity(anywidget.AnyWidget):
    """The amount of work left. Its height is constant, so nothing below it moves.

    Attributes:
        pending: Number of items that are still to be computed.
        total: Number of items when the work began.
        stopped: True if the rest is not computed until the user requests it.
        text: The text shown when nothing is being computed.
        still: Label of the widget's static picture in the notebook; empty if there is none.
    """

    _esm = joined("still.js", "activity.js")
    _css = styles("widgets.css", "controls.css")
    pending = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    stopped = traitlets.Bool(False).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    still = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_stop: Callable[[], None], on_resume: Callable[[], None]) -> None:
        """Show nothing at first.

        Args:
            on_stop: Called to stop the work.
            on_resume: Called to resume it.
        """
        super().__init__()
        self._calls = {"stop": on_stop, "resume": on_resume}
        self.on_msg(self._receive)

    def count(self, pending: int) -> None:
        """Set the number of pending items."""
        with self.hold_sync():
            self.total = max(self.total, pending) if pending else 0
            self.pending = pending

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        self._calls[content["wanted"]]()
