"""Progress of long computations, counted in forward passes: what is done, how far it is, and the time that is left."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

_HERE = threading.local()
"""The bar of each thread, while one is shown."""
_DELAY = 1.0
"""Seconds before a bar is shown: what is done by then needs none."""


class _Meter:
    def __init__(self, bar: Any) -> None:
        self.bar, self.done = bar, 0.0

    def count(self, passes: float) -> None:
        self.done += passes
        whole = int(self.done) if self.bar.total is None else min(int(self.done), self.bar.total)
        if whole > self.bar.n:
            self.bar.update(whole - self.bar.n)


@contextmanager
def passes_shown(what: str, total: float | None, progress: bool) -> Iterator[None]:
    """Show a bar of the forward passes that models run within this context, if it takes more than a moment.

    Args:
        what: What is computed, before the bar.
        total: Passes of one image that it takes, about; None where that is not known.
        progress: False shows nothing.
    """
    if not progress or getattr(_HERE, "meter", None) is not None:
        yield
        return
    rounded = None if total is None else max(1, round(total))
    with tqdm(total=rounded, desc=what, unit="pass", delay=_DELAY, leave=False) as bar:
        _HERE.meter = _Meter(bar)
        try:
            yield
        finally:
            _HERE.meter = None


def count_passes(passes: float) -> None:
    """Say that so much of a forward pass of one image was run; parts of a pass add up."""
    meter = getattr(_HERE, "meter", None)
    if meter is not None:
        meter.count(passes)


class _Steps:
    """A bar over images or maps that moves on within each of them, as the model runs."""

    def __init__(self, bar: Any, passes: float | None, at_once: int) -> None:
        self.bar, self.passes, self.at_once = bar, passes, at_once
        self.finished, self.part = 0, 0.0

    @property
    def n(self) -> int:
        """How many are finished."""
        return self.finished

    def count(self, passes: float) -> None:
        if self.passes is not None:
            self.part += passes / self.passes
            left = min(self.at_once, self.bar.total - self.finished)
            self._show(self.finished + min(self.part, left - 0.1))  # what is not handed over is not finished

    def update(self, count: int = 1) -> None:
        self.finished, self.part = self.finished + count, 0.0
        self._show(self.finished)

    def _show(self, place: float) -> None:
        tenths = int(10 * place + 1e-9)
        if not self.bar.disable and tenths / 10 > self.bar.n:
            self.bar.n = tenths // 10 if tenths % 10 == 0 else tenths / 10
            self.bar.update(0)  # draws it, if it is time to


@contextmanager
def images_shown(
    what: str, count: int, per_batch: int, progress: bool, unit: str = "image", passes: float | None = 1.0
) -> Iterator[Any]:
    """A bar over images; where they are a single batch, one over its passes, if it takes more than a moment.

    Args:
        what: What is computed, before the bar.
        count: Number of images.
        per_batch: Images run at once.
        progress: False shows nothing.
        unit: What is counted.
        passes: Forward passes that one of them takes, about; None where that is not known.
    """
    single, outer = count <= per_batch, getattr(_HERE, "meter", None)
    total = None if passes is None else passes * count
    with (
        tqdm(total=count, desc=what, unit=unit, disable=not progress or single) as bar,
        passes_shown(f"{what}: {count} {unit}{'s' * (count != 1)}", total, progress and single),
    ):
        steps = _Steps(bar, passes, per_batch)
        if progress and not single and outer is None:
            _HERE.meter = steps
        try:
            yield steps
        finally:
            if not single:
                _HERE.meter = outer
