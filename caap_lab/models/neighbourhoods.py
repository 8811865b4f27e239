"""Neighbourhoods: which patches are live together with a patch (paper section 3.1 and Fig. 5).

Only names and offsets, without torch, so that the command line can list them quickly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral

from caap_lab.errors import InputError


@dataclass(frozen=True)
class Neighbourhood:
    """Offsets (row, column) around a patch; clipped at the border of the grid, never wrapped around.

    Raises:
        InputError: the patch itself is not among them.
    """

    offsets: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if (0, 0) not in self.offsets:
            raise InputError("A neighbourhood must contain the patch itself: add (0, 0) to its offsets.")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def can_be_interpolated(self) -> bool:
        """Whether the interpolated tail supports it: for each offset, the opposite one must be included.

        That tail sums a token's rows over the groups that contain it. For token j, those are the groups of the patches
        j - (row, column), which are the neighbours of j only in a symmetric neighbourhood.
        """
        return all((-row, -col) in self.offsets for row, col in self.offsets)


NEIGHBOURHOODS: dict[str, Neighbourhood] = {
    "none": Neighbourhood(((0, 0),)),
    "cross1": Neighbourhood(tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if abs(r) + abs(c) <= 1)),
    "box1": Neighbourhood(tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1))),
    "diamond2": Neighbourhood(tuple((r, c) for r in range(-2, 3) for c in range(-2, 3) if abs(r) + abs(c) <= 2)),
    "box2": Neighbourhood(tuple((r, c) for r in range(-2, 3) for c in range(-2, 3))),
}
"""All named neighbourhoods."""
_BUILT_IN = tuple(NEIGHBOURHOODS)


def find_neighbourhood(name: str) -> Neighbourhood:
    """The neighbourhood with this name.

    Raises:
        InputError: there is none.
    """
    if not isinstance(name, str) or name not in NEIGHBOURHOODS:
        raise InputError(f"There is no neighbourhood {name!r}; there are {', '.join(NEIGHBOURHOODS)}.")
    return NEIGHBOURHOODS[name]


def own_neighbourhoods() -> dict[str, Neighbourhood]:
    """The neighbourhoods that users registered, by name."""
    return {name: kind for name, kind in NEIGHBOURHOODS.items() if name not in _BUILT_IN}


def register_neighbourhood(name: str, offsets: Iterable[tuple[int, int]]) -> None:
    """Register a neighbourhood under a name.

    ```python
    cl.register_neighbourhood("row3", [(0, -1), (0, 0), (0, 1)])
    m = cl.caap(model, image, neighbourhood="row3")
    ```

    Args:
        name: Name for `caap`, `tokens.neighbourhood` and others; your own names may be registered again.
        offsets: Pairs (row, column) around a patch; (0, 0), the patch itself, must be one of them.

    Raises:
        InputError: the name is built in, or the offsets are not such pairs.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"A neighbourhood needs a name, such as 'row3', not {name!r}.")
    if name in _BUILT_IN:
        raise InputError(f"{name!r} is a built-in neighbourhood; register yours under another name.")
    pairs = list(offsets) if isinstance(offsets, Iterable) else []
    if not pairs or not all(_is_pair(pair) for pair in pairs):
        raise InputError("A neighbourhood is a list of pairs of integers (row, column), such as [(0, 0), (0, 1)].")
    whole = tuple(dict.fromkeys((int(row), int(col)) for row, col in pairs))
    NEIGHBOURHOODS[name] = Neighbourhood(whole)


def _is_pair(pair: object) -> bool:
    whole = isinstance(pair, (tuple, list)) and len(pair) == 2
    return whole and all(isinstance(part, Integral) and not isinstance(part, bool) for part in pair)  # type: ignore[attr-defined]
