"""Progress of long computations, counted in forward passes: what is computed, how far, and the time left."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from caap_lab.labels import counted

_HERE = threading.local()
"""The progress bar of each thread, while one is shown."""
_DELAY = 1.0
"""Seconds before a bar is shown; shorter computations show none."""


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
    """Context with a progress bar over the forward passes that models run in it, if it takes more than a second.

    Args:
        what: What is computed; the text before the bar.
        total: Approximate number of passes of one image; None if not known.
        progress: False to show nothing.
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
    """Count forward passes of one image towards the bar; fractions of a pass add up."""
    meter = getattr(_HERE, "meter", None)
    if meter is not None:
        meter.count(passes)


class _Steps:
    """A bar over images or maps that also advances within each of them, as the model runs."""

    def __init__(self, bar: Any, passes: float | None, at_once: int) -> None:
        self.bar, self.passes, self.at_once = bar, passes, at_once
        self.finished, self.part = 0, 0.0

    @property
    def n(self) -> int:
        """Number of finished images or maps."""
        return self.finished

    def count(self, passes: float) -> None:
        if self.passes is not None:
            self.part += passes / self.passes
            left = min(self.at_once, self.bar.total - self.finished)
            self._show(self.finished + min(self.part, left - 0.1))  # not finished until its result is returned

    def update(self, count: int = 1) -> None:
        self.finished, self.part = self.finished + count, 0.0
        self._show(self.finished)

    def _show(self, place: float) -> None:
        tenths = int(10 * place + 1e-9)
        if not self.bar.disable and tenths / 10 > self.bar.n:
            self.bar.n = tenths // 10 if tenths % 10 == 0 else tenths / 10
            self.bar.update(0)  # redraws the bar if enough time has passed


@contextmanager
def images_shown(
    what: str, count: int, per_batch: int, progress: bool, unit: str = "image", passes: float | None = 1.0
) -> Iterator[Any]:
    """A progress bar over images, or over the passes of a single batch, if it takes more than a second.

    Args:
        what: What is computed; the text before the bar.
        count: Number of images.
        per_batch: Images run at once.
        progress: False to show nothing.
        unit: Name of what is counted.
        passes: Approximate number of forward passes per image; None if not known.
    """
    single, outer = count <= per_batch, getattr(_HERE, "meter", None)
    total = None if passes is None else passes * count
    with (
        tqdm(total=count, desc=what, unit=unit, disable=not progress or single) as bar,
        passes_shown(f"{what}: {counted(count, unit)}", total, progress and single),
    ):
        steps = _Steps(bar, passes, per_batch)
        if progress and not single and outer is None:
            _HERE.meter = steps
        try:
            yield steps
        finally:
            if not single:
                _HERE.meter = outer
