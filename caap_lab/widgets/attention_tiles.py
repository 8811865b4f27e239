"""The board of the attention widget: the photo with its objects, and the map of the chosen head."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from caap_lab.widgets.board import Tile, colour_tile, map_tile
from caap_lab.widgets.objects import Objects

UNIT = "share of its attention"


def photo_with_objects(objects: Objects, brush: int, query: str) -> Tile:
    """The photo.

    Args:
        objects: Their patches are coloured.
        brush: The object that is painted, which the board draws itself.
        query: What looks, in words.
    """
    colours = objects.colours(leave_out=brush)
    words = [objects.word(cell) for cell in range(objects.regions.size)]
    return colour_tile("photo", "photo", f"query: {query}", colours, tips=words, paint=True)


def chosen_map(
    scores: Float[np.ndarray, "row col"] | None, grid: tuple[int, int], place: str, highs: Mapping[str, float]
) -> Tile:
    """The map of a head.

    Args:
        scores: Its values; None while they are read.
        grid: Rows and columns of patches.
        place: The head in words.
        highs: Value of the last colour, by range; the first one's is 0.
    """
    tile = map_tile("map", "photo", place, scores, grid, UNIT)
    return {**tile, **{name: [0.0, high] for name, high in highs.items()}}
