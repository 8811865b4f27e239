"""One thread at a time in a model: hooks set in one would change what another reads."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_SECONDS_UNTIL_WARNING = 120.0

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""By timm's model, which several hooked models may share; not kept in it, so that it can be copied and pickled."""
_making = threading.Lock()


def share_lock(body: nn.Module, other: nn.Module) -> None:
    """Let two modules that share parts be held as one."""
    with _making:
        _locks[other] = _locks.setdefault(body, threading.RLock())


@contextmanager
def locked(body: nn.Module, name: str) -> Iterator[None]:
    """Keep a model to this thread; another one waits, and this one may take it again.

    Args:
        body: timm's model.
        name: What a thread that waits for long calls it.
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
