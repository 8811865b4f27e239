"""Loaded by every worker process of this machine before its first trial."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started the workers: it reaches them too, and trials in flight must finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
