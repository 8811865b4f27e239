"""Small check boxes side by side, such as the heads of a layer."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent


class CheckRow(anywidget.AnyWidget):
    """Check boxes with short labels, as many in a line as fit.

    Attributes:
        labels: What they are called.
        chosen: Places of those that are checked, in order.
        title: What they are, in a line above.
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
