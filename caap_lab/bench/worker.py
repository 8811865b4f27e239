"""Loaded by every worker process of this machine before its first trial."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C, which also reaches workers: the main process handles it, and trials in progress must finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
