"""Waiting for what widgets compute in the background."""

import time
from collections.abc import Callable
from typing import Any

SECONDS = 180
"""Only a test that fails waits so long."""


def finished(widget: Any) -> None:
    """Wait until a widget has computed everything."""
    widget.wait()
    assert widget.worker.pending == 0


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)
