"""Maps and photos as the small PNG files that widgets show."""

from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from caap_lab.plots import maps

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

Part = Literal["all", "positive", "negative"]
PARTS: tuple[Part, ...] = ("all", "positive", "negative")


def png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Pixels as PNG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def map_colours(
    map: "AttributionMap", colour_map: str | None = None, part: Part = "all"
) -> UInt8[np.ndarray, "row col 4"]:
    """One colour per patch, on the scale of `caap_lab.plots.maps.plot_map`.

    Args:
        map: The map.
        colour_map: A matplotlib colour map; by default one that fits the sign of the scores.
        part: "positive" or "negative" leaves the patches of the other sign clear.
    """
    scores = map.scores.double().numpy()
    colours = maps.map_colours(scores, map.sign == "signed", colour_map)
    if part != "all":
        colours[scores <= 0 if part == "positive" else scores >= 0, 3] = 0
    return colours


def map_range(map: "AttributionMap") -> tuple[float, float]:
    """Scores at the two ends of the colours: around 0 for signed maps, else the lowest and the highest."""
    return maps.map_range(map.scores.double().numpy(), map.sign == "signed")
