"""The range of an axis relative to its quantity, so that a small difference does not look like a large one."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

SHARE = (0.0, 1.0)
"""Natural range of fractions and probabilities."""
PERCENT = (0.0, 100.0)
"""Natural range of percentages."""
CORRELATION = (-1.0, 1.0)
"""Natural range of correlations."""
LEAST = 0.25
"""Minimum fraction of its natural range that an axis spans: differences of a hundredth then look small."""


def value_span(
    values: Float[np.ndarray, "..."], natural: tuple[float, float] | None = None, least: float = LEAST
) -> tuple[float, float]:
    """Ends of an axis that contains all values and spans at least a quarter of the quantity's natural range.

    Figures and the browser's charts use this one rule: probabilities from 0.58 to 0.62 are drawn on an axis from 0.475
    to 0.725.

    Args:
        values: The values drawn, with the ends of error bars; NaN and infinity are ignored.
        natural: Possible range of the quantity, such as `SHARE`. None means from 0 to the value of largest size, as for
            logits: then differences are seen relative to the values.
        least: Minimum fraction of the natural range that the axis spans.
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return natural or (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    lowest, highest = (0.0, float(np.abs(known).max()) or 1.0) if natural is None else natural
    lacking = least * (highest - lowest) - (high - low)
    if lacking <= 0:
        return low, high
    low, high = low - lacking / 2, high + lacking / 2
    if natural is not None:  # no room beyond the possible range, unless values lie there
        shift = max(lowest - low, 0.0) - max(high - highest, 0.0)
        low, high = low + shift, high + shift
    return min(low, float(known.min())), max(high, float(known.max()))


def keep_span(
    ax: Axes, values: Float[np.ndarray, "..."], natural: tuple[float, float] | None = None, *, vertical: bool = True
) -> None:
    """Set the range of an axis by `value_span`; it still follows everything that is drawn, and shared axes.

    Args:
        ax: The axes.
        values: The values drawn, with the ends of error bars.
        natural: Possible range of the quantity.
        vertical: The values are on the y axis, otherwise on the x axis.
    """
    ends = value_span(values, natural)
    ax.update_datalim([(end, end) for end in ends], updatex=not vertical, updatey=vertical)
    ax.autoscale_view(scalex=not vertical, scaley=vertical)
