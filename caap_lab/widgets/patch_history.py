"""The last few patches with what they did, to come back to."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class PatchHistory(anywidget.AnyWidget):
    """A table of patches, the newest first; a click on one brings it back.

    Attributes:
        rows: Each with `where` (tokens), `what` (point, layers, heads), `by` (what is put in), `into` (the photos) and
            `effect`, all for people, and `rises`, whether the score rises.
        chosen: Place of the row that is shown; -1 for none.
        effect: What the effects are of.
    """

    _esm = _HERE / "patch_history.js"
    _css = _HERE / "widgets.css"
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    effect = traitlets.Unicode().tag(sync=True)
