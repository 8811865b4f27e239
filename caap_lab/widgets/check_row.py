"""Small check boxes side by side, such as the heads of a layer."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent


class CheckRow(anywidget.AnyWidget):
    """Check boxes with short labels, as many per line as fit.

    Attributes:
        labels: Labels of the boxes.
        chosen: Indices of the checked boxes, in order.
        title: The line above the boxes.
        none: What it means if none is checked.
    """

    _esm = _HERE / "check_row.js"
    _css = _HERE / "widgets.css"
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    none = traitlets.Unicode().tag(sync=True)

    @traitlets.validate("chosen")
    def _in_order(self, proposal: dict[str, Any]) -> list[int]:
        return sorted({place for place in proposal["value"] if 0 <= place < len(self.labels)})
