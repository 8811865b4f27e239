"""Text in figures about their numbers: the number of images, and the protocol."""

from collections.abc import Iterable, Sequence

import pandas as pd

MEANS = "mean \N{PLUS-MINUS SIGN} standard error over images"


def count_text(counts: Sequence[int] | pd.Series) -> str:
    """The number of images: "n = 500", or "n = 125 to 500" if it varies."""
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def means_text(protocol: str, steps: Iterable[float] | None = None) -> str:
    """The meaning of means, and the protocol of curves: "mean ± standard error over images; protocol rise, 224 steps".

    Args:
        protocol: Name of the protocol.
        steps: Numbers of steps of the curves, with repetitions; empty if there are no curves, None to omit them.
    """
    if steps is None:
        return f"{MEANS}; protocol {protocol}"
    counts = sorted({int(count) for count in steps})
    return f"{MEANS}; protocol {protocol}, {' or '.join(map(str, counts))} steps" if counts else MEANS
