"""Maps and photos as the small PNG files that widgets show."""

from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image

from caap_lab.plots.style import COLOUR_MAP, SIGNED_COLOUR_MAP

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap

Part = Literal["all", "positive", "negative"]
PARTS: tuple[Part, ...] = ("all", "positive", "negative")


def png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Pixels as PNG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def grey(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """A photo without colours, so that colours belong to the scores laid over it."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def map_colours(
    map: "AttributionMap", colour_map: str | None = None, part: Part = "all"
) -> UInt8[np.ndarray, "row col 4"]:
    """A colour a patch, on the scale of `caap_lab.plots.maps.plot_map`.

    Args:
        map: The map.
        colour_map: A matplotlib colour map; by default one that fits the sign of the scores.
        part: "positive" or "negative" leaves the patches of the other sign clear.
    """
    scores = map.scores.double().numpy()
    low, high = map_range(map)
    shares = (scores - low) / ((high - low) or 1.0)
    name = colour_map or (SIGNED_COLOUR_MAP if map.sign == "signed" else COLOUR_MAP)
    colours = np.asarray(colormaps[name](shares, bytes=True))
    if part != "all":
        colours[scores <= 0 if part == "positive" else scores >= 0, 3] = 0
    return colours


def map_range(map: "AttributionMap") -> tuple[float, float]:
    """Scores at the two ends of the colours: around 0 for signed maps, else the lowest and the highest."""
    if map.sign == "signed":
        limit = float(map.scores.abs().max()) or 1.0
        return -limit, limit
    return float(map.scores.min()), float(map.scores.max())


def colour_table(name: str = COLOUR_MAP) -> Float[np.ndarray, "256 3"]:
    """The 256 colours of a colour map, 0 to 255."""
    return np.asarray(colormaps[name](np.arange(256), bytes=True))[:, :3]
