"""What the engine is to compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Blocks, context and approximations of a map; checked by `caap`."""

    start: int
    cutoffs: tuple[int, ...]
    """Rising; all maps but the first share its blocks up to their own cutoff."""
    neighbourhood: str
    context: str
    attention: str
    tail: str
