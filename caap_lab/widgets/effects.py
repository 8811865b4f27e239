"""Effects of patches as colours and words."""

import numpy as np
from jaxtyping import Float

from caap_lab.widgets.board import Ends

UNPATCHED = {"denoise": 0.0, "noise": 1.0}
"""The effect of patching nothing, by direction."""


def effect_limits(effects: Float[np.ndarray, "*cell"], direction: str) -> Ends:
    """Ends of the colours, symmetric around the effect of patching nothing; NaN values are not known yet."""
    middle = UNPATCHED[direction]
    known = effects[np.isfinite(effects)]
    furthest = float(np.abs(known - middle).max(initial=0)) or 1.0
    return middle - furthest, middle + furthest


def effect_tiles(effects: Float[np.ndarray, "layer column"], limits: Ends) -> bytes:
    """Indices into a table of 256 colours; the middle if the effect is not known yet."""
    return np.rint(255 * _shares(effects, limits)).astype(np.uint8).tobytes()


def effect_words(effect: float) -> str:
    """An effect as text."""
    return f"effect {effect:z.3f}" if np.isfinite(effect) else "computing"


def limits_words(limits: Ends) -> str:
    """The ends of the colours as text."""
    return f"{limits[0]:.2g} to {limits[1]:.2g}"


def _shares(effects: Float[np.ndarray, "*cell"], limits: Ends) -> Float[np.ndarray, "*cell"]:
    low, high = limits
    return np.nan_to_num((effects - low) / (high - low), nan=0.5).clip(0, 1)
