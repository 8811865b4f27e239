"""Keeps keys for a widget that the notebook would use as commands."""

from pathlib import Path

import anywidget


class KeyGuard(anywidget.AnyWidget):
    """Invisible: it stops JupyterLab from using the keys that a closed drop-down list needs."""

    _esm = Path(__file__).parent / "key_guard.js"
