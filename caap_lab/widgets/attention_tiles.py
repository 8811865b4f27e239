"""The tiles of the attention widget: the photo with its objects, and the map of the chosen head."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from caap_lab.widgets.board import Tile, colour_tile, map_tile
from caap_lab.widgets.objects import Objects

UNIT = "share of its attention"


def photo_with_objects(objects: Objects, brush: int, query: str) -> Tile:
    """The tile of the photo.

    Args:
        objects: The objects; their patches are coloured.
        brush: The object being painted, which the board draws itself.
        query: The query, in words.
    """
    colours = objects.colours(leave_out=brush)
    words = [objects.word(cell) for cell in range(objects.regions.size)]
    return colour_tile("photo", "photo", f"query: {query}", colours, tips=words, paint=True)


def chosen_map(
    scores: Float[np.ndarray, "row col"] | None, grid: tuple[int, int], place: str, highs: Mapping[str, float]
) -> Tile:
    """The tile of a head's map.

    Args:
        scores: Its values; None until they are read.
        grid: Rows and columns of patches.
        place: The head, in words.
        highs: Value at the end of the colours, by range; the colours start at 0.
    """
    tile = map_tile("map", "photo", place, scores, grid, UNIT)
    return {**tile, **{name: [0.0, high] for name, high in highs.items()}}
