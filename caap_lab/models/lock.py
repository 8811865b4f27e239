"""Locks that let only one thread at a time use a model: its hooks would affect other threads."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_SECONDS_UNTIL_WARNING = 120.0

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""By timm model, which several hooked models may share; not stored in the model, so that it can be pickled."""
_making = threading.Lock()


def share_lock(body: nn.Module, other: nn.Module) -> None:
    """Make two modules that share submodules use the same lock."""
    with _making:
        _locks[other] = _locks.setdefault(body, threading.RLock())


@contextmanager
def locked(body: nn.Module, name: str) -> Iterator[None]:
    """Context in which only this thread may use a model; others wait. The same thread may enter it again.

    Args:
        body: timm's model.
        name: Name of the model in the warning of a thread that waits for long.
    """
    with _making:
        lock = _locks.setdefault(body, threading.RLock())
    if not lock.acquire(timeout=_SECONDS_UNTIL_WARNING):
        warnings.warn(
            f"{name} has been in use by another thread for {_SECONDS_UNTIL_WARNING:.0f} s, and this thread "
            "waits for it. Give each thread a copy.deepcopy(model), or leave hooks(...) before waiting for a thread.",
            stacklevel=4,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
