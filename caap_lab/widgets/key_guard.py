"""Keys that belong to a widget and not to the notebook."""

from pathlib import Path

import anywidget


class KeyGuard(anywidget.AnyWidget):
    """Nothing to see: it keeps JupyterLab from taking the keys that a closed drop-down list needs."""

    _esm = Path(__file__).parent / "key_guard.js"
