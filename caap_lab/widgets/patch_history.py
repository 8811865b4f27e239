"""The most recent patches with their effects, to return to."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class PatchHistory(anywidget.AnyWidget):
    """A table of patches, the newest first; a click on one restores it.

    Attributes:
        rows: Each with `where` (tokens), `what` (point, layers, heads), `by` (the replacement), `into` (the photos) and
            `effect`, all as text, and `rises`, whether the score rises.
        chosen: Index of the row that is shown; -1 for none.
        effect: The quantity whose change is shown.
    """

    _esm = _HERE / "patch_history.js"
    _css = _HERE / "widgets.css"
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    effect = traitlets.Unicode().tag(sync=True)
