"""Whether PyTorch's threads compete for cores with other programs, and what to do about it."""

import os
import time
from typing import NamedTuple

import psutil


class CpuTimes(NamedTuple):
    """CPU seconds since some starting point, on the cores that this process may use."""

    wall: float
    busy: float
    """Seconds of all programs, summed over the cores."""
    own: float
    """Seconds of this process, summed over its threads."""
    cores: int


def read_cpu_times() -> CpuTimes:
    """The current counters; the difference of two readings is the use between them."""
    every = psutil.cpu_times(percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    times = [every[core] for core in allowed if core < len(every)] or every
    busy = sum(sum(one) - one.idle - getattr(one, "iowait", 0) - getattr(one, "guest", 0) for one in times)
    return CpuTimes(time.monotonic(), busy, time.process_time(), len(times))


def contention(threads: int, before: CpuTimes, after: CpuTimes) -> str:
    """A warning if threads have to wait for cores that other programs use; empty if they do not.

    The threads of one operation wait for the last of them. With fewer free cores than threads each operation therefore
    takes until the suspended thread runs again, many times as long as with a single thread.

    Args:
        threads: Number of PyTorch's threads.
        before: An earlier reading.
        after: A later one.
    """
    seconds = after.wall - before.wall
    if threads < 2 or seconds <= 0:
        return ""
    others = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / seconds
    free = after.cores - others
    if others < 0.5 or threads <= free + 0.5:
        return ""
    fitting = max(1, int(free + 0.5))
    return (
        f"PyTorch runs with {threads} threads, while other programs use {others:.1f} of {after.cores} CPU cores. "
        "Its threads wait for each other, and runs can take many times as long. "
        f"torch.set_num_threads({fitting}) helps now, and OMP_NUM_THREADS={fitting} set before Python starts."
    )


def contention_now(threads: int, seconds: float = 0.5) -> str:
    """The result of `contention`, measured over a short time.

    Args:
        threads: Number of threads that PyTorch has, or would have.
        seconds: Duration of the measurement.
    """
    if threads < 2:
        return ""
    before = read_cpu_times()
    time.sleep(seconds)
    return contention(threads, before, read_cpu_times())


def default_threads() -> int:
    """Number of threads with which PyTorch starts in a new process, without loading it."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if given.isdigit() and int(given) > 0:
        return int(given)
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1
