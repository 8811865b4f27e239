"""Background work of a widget: one thread, the newest request first, results delivered in the kernel's thread.

A widget works on a copy of the model (`cancellable_copy`), so its computations never meet the hooks that a cell of the
notebook sets meanwhile; work that is no longer needed is stopped between two torch functions.
"""

import asyncio
import atexit
import copy
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import nn
from torch.overrides import TorchFunctionMode

Model = TypeVar("Model", bound=nn.Module)


class Cancelled(BaseException):
    """Raised in work that is no longer needed. Not an Exception, so error handlers do not catch it."""


@dataclass(frozen=True, eq=False)
class Job:
    """A computation, and what to do with its result."""

    key: Hashable
    """Equal for the same work: a job that is already running is not started again."""
    run: Callable[[], Any]
    on_result: Callable[[Any], None]
    """Called with the result, in the kernel's thread."""


class Worker:
    """Runs jobs one after the other in a thread; `on_error` is called with their errors in the kernel's thread."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._results: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._delivering = threading.RLock()
        self._closed = False
        self._changed = threading.Condition()
        self._stop = threading.Event()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # a script: results are delivered in the worker's thread
        self._thread: threading.Thread | None = None
        _workers.add(self)

    def check(self) -> None:
        """End a job that is no longer wanted; called between pieces of work."""
        if self._stop.is_set() and threading.current_thread() is self._thread:
            raise Cancelled

    def replace_jobs(self, jobs: Sequence[Job]) -> None:
        """Set the jobs to do, in this order; all others that wait or run are dropped."""
        with self._changed:
            running = None if self._stop.is_set() else self._running  # a job that is being stopped returns no result
            keep = running is not None and any(job.key == running.key for job in jobs)
            self._waiting = [job for job in jobs if not (running is not None and job.key == running.key)]
            if running is not None and not keep:
                self._stop.set()
            if self._waiting and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="caap_lab widget", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def pending(self) -> int:
        """Number of jobs that run, wait, or have a result that is not delivered yet."""
        with self._changed:
            running = self._running is not None and not self._stop.is_set()
            return len(self._waiting) + running + len(self._results)

    def wait(self, seconds: float = 60) -> None:
        """Wait until all jobs are done and delivered, for a cell or a script that needs the results.

        Raises:
            TimeoutError: it takes longer than `seconds`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting and self._running is None, seconds):
                raise TimeoutError(f"The widget is still computing after {seconds} s.")
        self._deliver()

    def close(self) -> None:
        """Drop all work and end the thread."""
        with self._changed:
            self._closed = True
            self._waiting = []
            self._results.clear()
            self._stop.set()
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait until the thread of a closed worker has ended, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if self._closed:
                    return
                job = self._running = self._waiting.pop(0)
                self._stop.clear()
            try:
                with Stoppable(self.check):
                    receiver, result = job.on_result, job.run()
            except Cancelled:
                continue
            except Exception as error:
                receiver, result = self._on_error, error
            if self._stop.is_set():
                continue
            with self._changed:
                self._results.append((receiver, result))
                self._running = None  # before its delivery, when pending jobs may be counted
            if self._loop is None or self._loop.is_closed():
                self._deliver()
            else:
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Deliver all results, in the order in which they arrived."""
        with self._delivering:
            while True:
                with self._changed:
                    if self._closed or not self._results:
                        return
                    receiver, result = self._results.popleft()
                receiver(result)


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End the work of all widgets before Python exits: it aborts the process if a thread is inside torch's C++ code."""
    workers = list(_workers)
    for worker in workers:
        worker.close()
    for worker in workers:
        worker.join(_PATIENCE)


_PATIENCE = 10.0
"""Seconds at exit within which a job gets to its next torch function."""


class Stoppable(TorchFunctionMode):
    """Calls `check` before each torch function in this thread until it has raised once, so that cleaning up can finish.

    The model itself is not changed, so its maps are exactly those of the user's model.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check: Callable[[], None] | None = check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        check, self._check = self._check, None
        if check is not None:
            check()
            self._check = check
        return func(*args, **(kwargs or {}))


def cancellable_copy(model: Model) -> Model:
    """A copy of a model with the same weights and its own hooks."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, cast(dict[int, Any], shared))
