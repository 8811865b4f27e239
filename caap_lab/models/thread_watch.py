"""A look at PyTorch's threads while models run: said once, where they wait for cores that other programs use."""

import time

import torch

from caap_lab.cpu_use import CpuTimes, contention, read_cpu_times
from caap_lab.notes import note

_SECONDS = 1.0
"""Between two looks: shorter ones would see chance."""
_TWICE = 2
"""Looks in a row that have to agree, so that a short task of the system is no reason."""


class ThreadWatch:
    """Looks at the counters now and then, and says at most once what is wrong."""

    def __init__(self) -> None:
        self._last: CpuTimes | None = None
        self._next = 0.0
        self._seen = 0
        self.said = False

    def look(self) -> None:
        """Look if it is time; costs nothing else, so that every run of a model may call it."""
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
"""Of this process."""
