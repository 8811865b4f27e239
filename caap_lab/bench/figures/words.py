"""What stands in figures about their numbers: how many images, and with which protocol."""

from collections.abc import Iterable, Sequence

import pandas as pd

MEANS = "mean \N{PLUS-MINUS SIGN} standard error over images"


def count_text(counts: Sequence[int] | pd.Series) -> str:
    """How many images there are: "n = 500", or "n = 125 to 500" where it is not the same everywhere."""
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def means_text(protocol: str, steps: Iterable[float] | None = None) -> str:
    """What means are, and which protocol curves have: "mean ± standard error over images; protocol rise, 224 steps".

    Args:
        protocol: Its name.
        steps: Of the curves, as often as wanted; none where there are no curves, None to leave them out.
    """
    if steps is None:
        return f"{MEANS}; protocol {protocol}"
    counts = sorted({int(count) for count in steps})
    return f"{MEANS}; protocol {protocol}, {' or '.join(map(str, counts))} steps" if counts else MEANS
