"""A warning, given once, if PyTorch's threads wait for cores that other programs use."""

import time

import torch

from caap_lab.cpu_use import CpuTimes, contention, read_cpu_times
from caap_lab.notes import note

_SECONDS = 1.0
"""Seconds between two looks; shorter intervals would be too noisy."""
_TWICE = 2
"""Consecutive looks that must agree, so that a short system task does not trigger the warning."""


class ThreadWatch:
    """Looks at the counters from time to time, and warns at most once."""

    def __init__(self) -> None:
        self._last: CpuTimes | None = None
        self._next = 0.0
        self._seen = 0
        self.said = False

    def look(self) -> None:
        """Look if enough time has passed; otherwise costs nothing, so that every run of a model may call it."""
        now = time.monotonic()
        if self.said or now < self._next:
            return
        self._next = now + _SECONDS
        times = read_cpu_times()
        words = "" if self._last is None else contention(torch.get_num_threads(), self._last, times)
        self._last = times
        self._seen = self._seen + 1 if words else 0
        if self._seen >= _TWICE:
            self.said = True
            note(words)


WATCH = ThreadWatch()
"""The watch of this process."""
