"""Progress of one long computation in forward passes: what is at it, how far it is, and the time that is left."""

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


@contextmanager
def images_shown(what: str, count: int, per_batch: int, progress: bool, unit: str = "image") -> Iterator[Any]:
    """A bar over images; where they are a single batch, one over its passes, if it takes more than a moment.

    Args:
        what: What is computed, before the bar.
        count: Number of images.
        per_batch: Images run at once.
        progress: False shows nothing.
        unit: What is counted.
    """
    single = count <= per_batch
    with (
        tqdm(total=count, desc=what, unit=unit, disable=not progress or single) as bar,
        passes_shown(what, count, progress and single),
    ):
        yield bar
